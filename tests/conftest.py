"""Fixtures that several test files share, and what runs beside the tests."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from docs import outputs
from random_weights.small import random_checkpoint

# The models here are too small to gain from threads, and CI machines have few cores.
torch.set_num_threads(1)

PROCESS = pytest.StashKey[subprocess.Popen]()
DOCUMENTS_TEST = "test_outputs_are_what_is_printed"
LATER_PAIRS = ("generation", "mask_decoder", "training")


def is_long(item: pytest.Item) -> bool:
    """A browser takes its time, and so does the proof for each exercise: for those of the pairs that go
    beyond reading an answer's first token it is left to the long run."""
    if "browser" in item.fixturenames:
        return True
    exercise = item.callspec.params.get("exercise") if hasattr(item, "callspec") else None
    return exercise is not None and exercise.file in LATER_PAIRS and item.path.name != "test_exercises.py"


def pytest_collection_modifyitems(items):
    """What README.md and docs/ say is looked at last: until then its commands have run, on another core."""
    for item in items:
        if is_long(item):
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: item.name == DOCUMENTS_TEST)


def pytest_collection_finish(session):
    if any(item.name == DOCUMENTS_TEST for item in session.items) and not session.config.option.collectonly:
        # The lessons run in test_lessons.py.
        documents = [path for path in outputs.documents() if path.parent.name != "lessons"]
        session.config.stash[PROCESS] = subprocess.Popen(
            [sys.executable, "-m", "docs.outputs", *map(str, documents)], cwd=outputs.ROOT, encoding="utf-8",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip


def pytest_sessionfinish(session):
    process = session.config.stash.get(PROCESS, None)
    if process is not None and process.poll() is None:
        process.kill()


@pytest.fixture
def documents_process(request) -> subprocess.Popen:
    return request.config.stash[PROCESS]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A small random checkpoint, float32, in one file. Not to be changed by a test."""
    return random_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def browser():
    # GitHub's Linux machines come with Chrome: there its tests must not be left out unnoticed.
    is_expected = os.environ.get("GITHUB_ACTIONS") == "true" and sys.platform == "linux"
    give_up = pytest.fail if is_expected else pytest.skip
    try:
        from playwright import sync_api
    except ImportError:
        give_up("no playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        give_up("no Chromium here: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except sync_api.Error as error:
            give_up(f"Chromium does not start here: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
