"""The smallest training that learns: 64 users, one attribute, a student of 100,000 parameters."""

from pathlib import Path

from conf_profile import tables
from conf_profile.config import PromptConfig, SFTConfig, StudentConfig
from conf_profile.dialogue import task as tasks

TAGS = tasks.parse({"attributes": {"gender": ["female", "male"]}})
STUDENT = StudentConfig(
    hidden_size=64, layers=2, heads=2, key_value_heads=1, vocabulary_size=300, max_prompt_tokens=96,
    max_completion_tokens=40,
)  # fmt: skip
PROMPT = PromptConfig(student_style="brief", max_keyphrases=4)
SFT = SFTConfig(epochs=1, min_steps=80, batch_size=16, learning_rate=4e-3, rationales_per_user=1, save_steps=40,
                report_to=())  # fmt: skip
PHRASES = {"female": ("rose pruning", "weather"), "male": ("diesel engine", "weather")}
SPLITS = ("train", "train", "second_stage", "validation")


def write_inputs(folder: Path) -> Path:
    """Tables of 64 users, half of them of each tag, for SFT, rejection sampling and GRPO."""
    people = [(f"u{number:02d}", "female" if number % 8 < 4 else "male", SPLITS[number % 4]) for number in range(64)]
    nothing = {"search": [], "submit": [], "self_age": None, "self_gender": None, "signature": None, "region": None}
    common = {"attribute": "gender"}
    voted = common | {"score": 0.9, "level": 4, "votes": 8}
    rows = {
        "features": [
            {"user_id": u, "split": split, "watch": list(PHRASES[tag]), **nothing} for u, tag, split in people
        ],
        "pseudo_labels": [
            {"user_id": u, "tag": tag, "rationale": "; ".join(PHRASES[tag]), **voted} for u, tag, _ in people
        ],
        "reference": [{"user_id": u, "tag": tag, "confidence": 0.8, **common} for u, tag, _ in people],
        "support": [{"user_id": u, "tag": tag, "support": 0.8, **common} for u, tag, _ in people],
        "filtered": [
            {"user_id": u, "confidence": 0.8, "kept": True} for u, _, split in people if split != "validation"
        ],
    }
    for name, content in rows.items():
        schema = getattr(tables, name.upper())
        tables.write(folder / name, tables.from_rows(content, schema), schema)
    TAGS.save(folder / "task.yaml")
    return folder
