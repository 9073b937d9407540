"""The page's routes over a small model: its files, the state of the model served now, and off means off."""

import asyncio
import json
import re
import sys
import tomllib

import httpx
import pytest
from fastapi import FastAPI

from conf_profile.consensus import confidence
from conf_profile.consensus.confidence import Calibration, Partition
from conf_profile.dialogue import task as tasks
from serving.settings import Settings
from support.paths import ROOT

WEB = ROOT / "serving" / "web"
TAGS = tasks.parse({"attributes": {"age": ["young", "old"], "gender": ["female", "male"]}})
EVEN = Calibration("greedy", {name: Partition((0.2, 0.4, 0.6, 0.8)) for name in TAGS.names})
NOTHING = [{"tau": tau, "precision": None, "recall": None, "coverage": None} for tau in (1, 2, 3, 4, 5)]


def point(tau, precision, recall, coverage):
    return {"tau": tau, "precision": precision, "recall": recall, "f1": 0.5, "coverage": coverage}


AGE = [point(tau, 0.5 + 0.1 * tau, 0.9 - 0.1 * tau, 1.0 - 0.1 * tau) for tau in (1, 2, 3, 4)] + [point(5, 0, 0, 0)]
EVALUATION = {
    "candidate": "sft",
    "arms": {
        "base": {"sweep_per_attribute": {"age": [point(1, 0.0, 0.0, 0.0)]}},
        "sft": {"sweep_per_attribute": {"age": AGE}, "confusion": {}},
    },
}


@pytest.fixture(scope="module")
def settings_of(tmp_path_factory):
    """Settings for a new model folder of this version."""

    def make(version, evaluation=None, model_thresholds=None, **settings):
        folder = tmp_path_factory.mktemp(version)
        TAGS.save(folder / "task.yaml")
        confidence.save(EVEN, folder / "calibration.json")
        contents = {
            "profile": {"prompt": {"student_style": "brief"}, "max_completion_tokens": 48},
            "manifest": {"version": version},
            "thresholds": model_thresholds or {"age": 4, "gender": 2},
            **({"evaluation": evaluation} if evaluation else {}),
        }
        for name, content in contents.items():
            (folder / f"{name}.json").write_text(json.dumps(content))
        return Settings(model=folder, **{"web": True, **settings})

    return make


@pytest.fixture(scope="module")
def server(settings_of):
    """The server's program, its one transformer, and an application that has its page and kserve's form of errors."""
    with pytest.MonkeyPatch.context() as patch:
        # kserve reads the command line when it is imported; vllm is kept out, as `python -m serving` does.
        patch.setattr("sys.argv", ["test"])
        patch.setitem(sys.modules, "vllm", None)
        from kserve.errors import InvalidInput, invalid_input_handler

        from serving import __main__ as program
        from serving.web import routes

        app, transformer = FastAPI(), program.build(settings_of("first"))
    app.add_exception_handler(InvalidInput, invalid_input_handler)
    routes.register(app, transformer)
    return program, transformer, app


@pytest.fixture
def ask(server):
    """Takes the steps in turn: settings are changed over to, a path is asked for. Nothing asks the predictor."""
    program, transformer, app = server

    async def story(steps):
        answers = []
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            for step in steps:
                if isinstance(step, Settings):
                    transformer.replace(program.load_version(step))
                else:
                    answers.append(await client.get(step))
        return answers

    return lambda *steps: asyncio.run(story(steps))


def test_the_state_is_the_candidates_rates_and_the_thresholds_that_hold(ask, settings_of):
    (answer,) = ask(settings_of("v1", EVALUATION, thresholds={"gender": 5}), "/web/state")
    assert answer.headers["cache-control"] == "no-store"
    state = answer.json()
    assert (state["model"], state["version"]) == ("conf-profile", "v1")
    age, gender = state["attributes"]
    assert (age["name"], age["tags"], age["threshold"], gender["threshold"]) == ("age", ["young", "old"], 4, 5)
    assert age["measured"][1] == {"tau": 2, "precision": 0.7, "recall": 0.7, "coverage": 0.8}
    assert gender["measured"] == NOTHING


def test_where_nothing_was_accepted_there_is_no_precision(ask, settings_of):
    (answer,) = ask(settings_of("v1", EVALUATION), "/web/state")
    last = answer.json()["attributes"][0]["measured"][4]
    assert last == {"tau": 5, "precision": None, "recall": 0, "coverage": 0}


def test_a_model_without_an_evaluation_has_nothing_measured(ask, settings_of):
    (answer,) = ask(settings_of("v1"), "/web/state")
    assert [attribute["measured"] for attribute in answer.json()["attributes"]] == [NOTHING, NOTHING]


def test_an_unjudged_model_says_so_and_has_no_threshold_where_nothing_is_accepted(ask, settings_of):
    (answer, before) = ask(
        settings_of("v1", {"judged": False}, thresholds={"age": 5, "gender": 1}, model_thresholds={"age": 4}),
        "/web/state",
        settings_of("v2", EVALUATION),
        "/web/state",
    )
    state = answer.json()
    assert state["status"] == "unjudged" and "status" not in before.json()
    assert [attribute["threshold"] for attribute in state["attributes"]] == [5, None]


def test_the_page_follows_the_version_that_is_served(ask, settings_of):
    old, new = settings_of("v1", EVALUATION), settings_of("v2", thresholds={"age": 1})
    before, after = ask(old, "/web/state", new, "/web/state")
    assert (before.json()["version"], after.json()["version"]) == ("v1", "v2")
    assert after.json()["attributes"][0]["threshold"] == 1


def test_the_page_is_off_unless_it_is_asked_for():
    assert Settings(model="m").web is False


def test_settings_that_turn_the_page_off_take_every_route_away(ask, settings_of):
    paths = ["/web", "/web/page.js", "/web/page.css", "/web/state", "/web/features/u"]
    assert {answer.status_code for answer in ask(settings_of("v1"), settings_of("v2", web=False), *paths)} == {404}


def test_a_server_without_a_feature_store_says_so(ask, settings_of):
    (answer,) = ask(settings_of("v1"), "/web/features/u1")
    assert answer.status_code == 400
    assert "this server reads none: set features.repository" in answer.json()["error"]


def test_the_files_allow_nothing_from_elsewhere(ask, settings_of):
    page, script, style = ask(settings_of("v1"), "/web", "/web/page.js", "/web/page.css")
    kinds = [answer.headers["content-type"].split(";")[0] for answer in (page, script, style)]
    assert kinds == ["text/html", "text/javascript", "text/css"]
    for answer in (page, script, style):
        assert answer.headers["content-security-policy"].startswith("default-src 'self';")
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert not re.search(r"https?://|@import|url\(", answer.text)


def test_user_text_has_no_way_to_become_markup():
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|eval\("
    assert not re.search(forbidden, (WEB / "page.js").read_text(encoding="utf-8"))
    assert not re.search(r"\sstyle=|\son\w+=|<script>", (WEB / "page.html").read_text(encoding="utf-8"))


def test_an_installed_package_has_the_pages_files():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    assert {f"*{file.suffix}" for file in WEB.glob("page.*")} <= set(patterns)
