"""The student's pure parts, and a real (tiny, untrained) model where torch is needed."""

import copy
import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conf_profile import tables
from conf_profile.config import PromptConfig, StudentConfig
from conf_profile.data.world import world
from conf_profile.dialogue import task as tasks
from conf_profile.dialogue.output_format import Answer, ProfileAnswer, parse, render
from conf_profile.dialogue.prompts import UserFeatures
from conf_profile.errors import StudentError
from conf_profile.students import examples, folder, model, tokenizer, training
from conf_profile.students.examples import PseudoLabel
from conf_profile.students.rollouts import predict, rollouts

TAGS = tasks.builtin("profile")
BRIEF = PromptConfig(student_style="brief")
SMALL = StudentConfig(hidden_size=32, layers=1, heads=2, key_value_heads=1, max_completion_tokens=16)


@pytest.fixture(scope="module")
def people():
    the, drawn = world.build_world(), world.draw(120, 0)
    return [
        UserFeatures(f"u{row}", watch=[the.phrases[p] for p in phrases], region="north")
        for row, phrases in enumerate(drawn.phrases)
    ]


@pytest.fixture(scope="module")
def student(people):
    """An untrained student, and its tokenizer made from prompts."""
    prompts = [examples.student_messages(person, TAGS, BRIEF)[-1]["content"] for person in people]
    return model.build_base(SMALL, prompts, TAGS, seed=0)


def answer(level=3):
    return ProfileAnswer("rose pruning calendar", {name: Answer(TAGS[name].tags[0], level) for name in TAGS.names})


def test_the_tokenizer_gives_back_every_prompt_and_answer(student, people):
    _, pieces = student
    for person in people[:40]:
        text = examples.prompt_texts([examples.student_messages(person, TAGS, BRIEF)], pieces)[0]
        assert pieces.decode(pieces(text)["input_ids"]) == text
    text = render(answer(), TAGS)
    assert parse(pieces.decode(pieces(text)["input_ids"]), TAGS) == answer()


def test_frequent_keyphrases_and_the_grammar_are_single_tokens(student):
    _, pieces = student
    assert "weather tomorrow" in pieces.tokenize("watch: weather tomorrow; weather tomorrow")
    assert pieces.tokenize("<age>25-34<level>4</level></age>") == ["<age>25-34", "<level>4</level></age>"]


def test_an_answer_at_sign_up_is_one_token():
    prompts = [f"watch: weather tomorrow\nage: {age}" for age in (27, 27, 27, 27, 27, 31)]
    pieces = tokenizer.train_tokenizer(prompts, TAGS, 400)
    assert pieces.tokenize(prompts[0])[-1] == "27"
    assert pieces.tokenize(prompts[-1])[-2:] == ["3", "1"], "too rare"


def test_the_tokenizer_reads_text_it_never_saw(student):
    _, pieces = student
    text = "watch: Quantum chess; zebra crossings\nsignature: hi!"
    assert pieces.decode(pieces(text)["input_ids"]) == text


def test_levels_are_found_in_whatever_pieces_the_tokenizer_makes():
    text = render(answer(), TAGS)
    for width in (1, 3, 7, len(text)):
        pieces = [text[start : start + width] for start in range(0, len(text), width)]
        positions = tokenizer.level_positions(pieces)
        assert len(positions) == len(TAGS.names)
        for piece, digit in positions:
            assert pieces[piece][digit] == "3"
            assert tokenizer.level_alternatives(pieces, piece, digit)[4][digit] == "5"


def test_generation_is_greedy_at_temperature_zero_and_shares_prefixes_rightly(student, people):
    network, pieces = student
    prompts = examples.prompt_texts([examples.student_messages(p, TAGS, BRIEF) for p in people[:9]], pieces)
    alone = rollouts.generate(network, pieces, prompts, rollouts.Sampling(0.0, 1, 4, 12, 0))
    shared = rollouts.generate(network, pieces, prompts, rollouts.Sampling(0.0, 3, 6, 12, 0))
    assert [[texts[0]] * 3 for texts in alone] == shared


def test_the_same_seed_samples_the_same_rollouts(student, people):
    network, pieces = student
    prompts = examples.prompt_texts([examples.student_messages(p, TAGS, BRIEF) for p in people[:3]], pieces)
    sampling = rollouts.Sampling(1.0, 4, 8, 8, seed=5)
    first, second = (rollouts.generate(network, pieces, prompts, sampling) for _ in range(2))
    assert first == second
    assert len({text for texts in first for text in texts}) > 1


def test_expected_levels_are_the_models_own_probabilities(student, people):
    network, pieces = student
    prompt = examples.prompt_texts([examples.student_messages(people[0], TAGS, BRIEF)], pieces)
    stated = [rollouts.expected_levels(network, pieces, prompt, [render(answer(n), TAGS)], 4)[0] for n in (1, 5)]
    assert stated[0].shape == (6,)
    assert ((stated[0] >= 1) & (stated[0] <= 5)).all()
    # The first level stands behind the same text in both, so its expectation cannot depend on what was said.
    assert stated[0][0] == pytest.approx(stated[1][0], abs=1e-5)


def with_adapter(network):
    """LoRA that has learnt something: a new adapter changes no answer."""
    import torch

    torch.manual_seed(0)
    adapted = model.add_adapter(copy.deepcopy(network), SMALL.model_copy(update={"lora_rank": 2}))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    return adapted


def granite(network):
    """A model that scales the logits after its head."""
    import torch
    from transformers import GraniteConfig, GraniteForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vocabulary = {"vocab_size": network.config.vocab_size, "pad_token_id": network.config.pad_token_id}
    special = {"bos_token_id": None, "eos_token_id": network.config.eos_token_id}
    return GraniteForCausalLM(GraniteConfig(**size, **vocabulary, **special, initializer_range=0.2, logits_scaling=8.0))


def expected_from_all_logits(network, pieces, prompt, level):
    """The levels' expectations of `answer(level)`, from one row and the logits of all of its tokens."""
    import torch

    ids = pieces(prompt + render(answer(level), TAGS), add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        logits = network(input_ids=torch.tensor([ids])).logits[0]
    values = []
    for name in TAGS.names:
        alternatives = pieces.convert_tokens_to_ids([f"<level>{n}</level></{name}>" for n in range(1, 6)])
        probabilities = torch.softmax(logits[ids.index(alternatives[level - 1]) - 1, alternatives], dim=-1)
        values.append(float(probabilities @ torch.arange(1.0, 6.0)))
    return values


@pytest.mark.parametrize("kind", [copy.deepcopy, with_adapter, granite])
def test_only_the_logits_at_the_levels_are_made(student, people, kind):
    network, pieces = kind(student[0]).eval(), student[1]
    prompts = examples.prompt_texts([examples.student_messages(p, TAGS, BRIEF) for p in people[:5]], pieces)
    expected = [expected_from_all_logits(network, pieces, prompt, 1 + n) for n, prompt in enumerate(prompts)]
    made = []
    network.get_output_embeddings().register_forward_hook(lambda _, given, logits: made.append(tuple(logits.shape)))
    completions = [render(answer(1 + n), TAGS) for n in range(5)]
    found = rollouts.expected_levels(network, pieces, prompts, completions, batch_size=5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(found) > 0.1, "nothing to tell apart"
    assert made == [(5 * len(TAGS.names), network.config.vocab_size)]


def test_an_answer_without_levels_has_no_expectation(student, people):
    network, pieces = student
    prompts = examples.prompt_texts([examples.student_messages(p, TAGS, BRIEF) for p in people[:2]], pieces)
    for second, count in ((render(answer(), TAGS), 6), ("chess", 0)):
        found = rollouts.expected_levels(network, pieces, prompts, ["roses", second], 2)
        assert [len(levels) for levels in found] == [0, count]


def test_a_student_answers_on_the_gpu_where_torch_finds_one(monkeypatch):
    import torch

    assert rollouts.device() == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert rollouts.device() == "cuda"


def test_what_meets_a_student_lies_on_its_device(student, people, monkeypatch):
    """Torch's device without memory stands for the GPU: it refuses tensors of the CPU, and to be read."""
    monkeypatch.setattr(rollouts, "device", lambda: "meta")
    network, pieces = copy.deepcopy(student[0]), student[1]
    # The other implementation reads the mask.
    network.set_attn_implementation("eager")
    asked = folder.Student(network, pieces, TAGS, BRIEF, 16)
    with pytest.raises(RuntimeError, match=r"item\(\) cannot be called on meta tensors"):
        asked.answer(people[:2], 2)
    assert network.device.type == "meta"
    completions = [render(answer(), TAGS)] * 2
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
        rollouts.expected_levels(network, pieces, asked.prompts(people[:2]), completions, 2)


def test_a_students_folder_is_complete_and_loads(student, people, tmp_path):
    network, pieces = student
    folder.save(network, pieces, TAGS, BRIEF, SMALL, people[:5], 4, tmp_path / "student")
    names = {path.name for path in (tmp_path / "student").iterdir()}
    assert {"model.safetensors", "task.yaml", "calibration.json", "profile.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]
    loaded = folder.load(tmp_path / "student", "float32")
    assert loaded.task == TAGS
    assert loaded.prompts(people[:3]) == folder.Student(network, pieces, TAGS, BRIEF, 16).prompts(people[:3])
    assert list(tmp_path.iterdir()) == [tmp_path / "student"]


def test_a_folder_that_is_no_student_is_named(tmp_path):
    with pytest.raises(StudentError, match="cannot be loaded"):
        folder.load(tmp_path, "float32")


def test_pseudo_labels_become_sequences_with_the_users_own_keyphrases():
    person = UserFeatures("u1", watch=["a", "b", "c", "d", "e", "f", "g"], search=["h"])
    given_labels = {"u1": {"age": PseudoLabel("25-34", 4, "g; a; b; c; d; e; h; never shown")}}
    rows = list(examples.sft_examples([person], given_labels, TAGS, BRIEF, rationales_per_user=3, seed=0))
    assert len(rows) == 3
    for row in rows:
        parsed = parse(row.completion, TAGS)
        assert parsed.answers["age"] == Answer("25-34", 4)
        assert parsed.answers["gender"] == Answer(None, 1)
        named = parsed.rationale.split("; ")
        assert len(named) == examples.KEYPHRASES_NAMED
        assert named == [phrase for phrase in "abcdefgh" if phrase in named], "not in the prompt's order"


def test_an_answer_that_cannot_be_finished_is_not_taught():
    person = UserFeatures("u1", watch=["a", "b b b b", "c c", "d"])
    given_labels = {"u1": {"age": PseudoLabel("25-34", 4, "a; b b b b; c c; d")}}

    def words(text):
        return len(text.split())

    (whole,) = examples.sft_examples([person], given_labels, TAGS, BRIEF, 1, 0, words, 100)
    assert parse(whole.completion, TAGS).rationale == "a; b b b b; c c; d"
    (shorter,) = examples.sft_examples([person], given_labels, TAGS, BRIEF, 1, 0, words, words(whole.completion) - 1)
    assert parse(shorter.completion, TAGS).rationale == "a; c c; d", "the longest keyphrase gives way"
    (tags_alone,) = examples.sft_examples([person], given_labels, TAGS, BRIEF, 1, 0, words, 0)
    assert parse(tags_alone.completion, TAGS).rationale == ""
    assert parse(tags_alone.completion, TAGS).answers == parse(whole.completion, TAGS).answers


def test_users_without_a_pseudo_label_give_no_sequence():
    assert list(examples.sft_examples([UserFeatures("u1", watch=["a"])], {}, TAGS, BRIEF, 2, 0)) == []


def test_users_of_a_features_table_by_split():
    row = dict.fromkeys(tables.FEATURES.schema.names) | {"watch": ["a"], "search": [], "submit": []}
    rows = [{**row, "user_id": name, "split": split} for name, split in (("u1", "train"), ("u2", "test"))]
    table = pa.Table.from_pylist(rows, schema=tables.FEATURES.schema)
    assert [person.user_id for person in examples.users(table, ["test"])] == ["u2"]
    assert examples.users(table)[0] == UserFeatures("u1", watch=["a"])


def test_predictions_table_has_a_row_for_every_cell_and_nulls_for_no_answer():
    tags = tasks.parse({"attributes": {"age": ["young", "old"]}})
    answers = predict.GreedyAnswers(("u1", "u2"), (("old",), (None,)), np.array([[0.9], [0.0]]), malformed=1)
    calibration = predict.fit_calibration(answers, tags)
    rows = predict.to_table(answers, calibration, tags).to_pylist()
    assert rows == [
        {"user_id": "u1", "attribute": "age", "tag": "old", "level": 3, "score": 0.9},
        {"user_id": "u2", "attribute": "age", "tag": None, "level": None, "score": None},
    ]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 16), st.integers(1, 3))
def test_every_epoch_sees_every_row_once(lengths, batch_size, epochs):
    order = training.batch_order(lengths, batch_size, epochs, seed=0)
    for epoch in range(epochs):
        part = order[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(part) == list(range(len(lengths)))


def test_batches_hold_rows_of_similar_length():
    lengths = list(np.random.default_rng(0).integers(1, 400, 2000))
    order = training.batch_order(lengths, 20, 1, seed=0)
    spread = np.mean([np.ptp([lengths[row] for row in order[i : i + 20]]) for i in range(0, 2000, 20)])
    assert spread < 60 < np.mean([np.ptp(lengths[i : i + 20]) for i in range(0, 2000, 20)])


def test_checkpoints_are_named_by_what_the_step_was_given(tmp_path, monkeypatch):
    folder_for = partial(training.checkpoint_folder, str(tmp_path), "components.sft.task")
    path = tmp_path / "input"
    path.write_text("a")
    first = folder_for([path], ["{}"])
    assert folder_for([path], ["{}"]) == first
    assert folder_for([path], ['{"x":1}']) != first
    assert folder_for([tmp_path], ["{}"]) == first, "a folder is its files"
    path.write_text("b")
    assert folder_for([path], ["{}"]) != first
    path.write_text("a")
    monkeypatch.setattr(training, "source_hash", lambda _: "other code")
    assert folder_for([path], ["{}"]) != first


def test_a_half_written_checkpoint_is_not_used(tmp_path):
    for step, whole in ((10, True), (20, True), (30, False)):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        # The kill came while the trainer's last file was being written.
        (checkpoint / "trainer_state.json").write_text("{}" if whole else '{"epo')
        if whole:
            training.mark_whole_checkpoints().on_save(
                SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=step), None
            )
    assert training.last_checkpoint(tmp_path).endswith("checkpoint-20")
    assert training.last_checkpoint(tmp_path / "none") is None


def test_the_log_keeps_our_names(tmp_path):
    history = [{"step": 1, "loss": "0.5", "other": 1}, {"step": 2, "other": 1}]
    training.write_log(tmp_path / "log.json", history, {"loss": "loss"})
    assert json.loads((tmp_path / "log.json").read_text()) == [{"step": 1, "loss": 0.5}]
