"""The lessons: which there are, which exercises each belongs to, and the part that a terminal shows.

A lesson is a page of Markdown in docs/lessons/. Its first lines say to which exercises it belongs:

    <!-- lesson: 6 -->
    <!-- exercises: EncoderLayer, Encoder, GemmaRMSNorm -->
    <!-- also: VisionTransformer -->

`exercises` are those whose lesson it is; every exercise has exactly one. `also` are those that it is
worth reading for as well. What stands between `<!-- why -->` and `<!-- /why -->` is plain text of 10 to
25 lines, which `why` returns.
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

PAGES = Path(__file__).resolve().parent.parent / "docs" / "lessons"
ENTRY = re.compile(r"^<!-- (lesson|exercises|also): ?(.*?) -->$", re.MULTILINE)
WHY = re.compile(r"^<!-- why -->\n(.*?)^<!-- /why -->$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Lesson:
    number: int
    path: Path
    title: str
    exercises: tuple[str, ...]
    also: tuple[str, ...]
    why: str

    @property
    def file(self) -> str:
        """As a learner names it, from the root of the repository."""
        return f"docs/lessons/{self.path.name}"


def read_lesson(path: Path) -> Lesson | None:
    """The lesson on a page; None for a page that is not one, such as the primer."""
    text = path.read_text(encoding="utf-8")
    entries = dict(ENTRY.findall(text))
    if "lesson" not in entries:
        return None

    def names(entry: str) -> tuple[str, ...]:
        return tuple(name.strip() for name in entries.get(entry, "").split(",") if name.strip())

    title = re.search(r"^# (?:\d+\. )?(.+)$", text, re.MULTILINE)[1]
    why = WHY.search(text)[1].strip("\n")
    return Lesson(int(entries["lesson"]), path, title, names("exercises"), names("also"), why)


@functools.cache
def lessons() -> list[Lesson]:
    """All lessons, in the order of the learning path."""
    found = [read_lesson(path) for path in sorted(PAGES.glob("*.md"))]
    return sorted((lesson for lesson in found if lesson), key=lambda lesson: lesson.number)


def lesson_of(exercise: str) -> Lesson:
    """The lesson of an exercise. Raises KeyError for a name that no lesson has."""
    for lesson in lessons():
        if exercise in lesson.exercises:
            return lesson
    raise KeyError(exercise)


def why(exercise: str) -> str:
    """What `python learn.py why NAME` prints: the idea behind an exercise, and where to read on."""
    lesson = lesson_of(exercise)
    more = [other.path.name for other in lessons() if exercise in other.also]
    end = [f"The whole lesson, with a worked example and a picture: {lesson.file}"]
    if more:
        end.append(f"Also worth reading there: {', '.join(more)}")
    return "\n".join([lesson.title, "", lesson.why, "", *end])
