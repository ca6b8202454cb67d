"""What the image must hold to, as rules on its Dockerfile."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its continued lines joined.

    Attributes:
        stage: number of the stage that it belongs to; -1 before the first.
    """

    stage: int
    word: str
    text: str


Rule = Callable[[list[Instruction]], Iterator[str]]


def instructions(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        stage = sum(each.word == "FROM" for each in found) - (word != "FROM")
        found.append(Instruction(stage, word.upper(), " ".join(rest.split())))
    return found


def findings(text: str) -> dict[str, list[str]]:
    """What each rule finds, by its name; rules that find nothing are left out."""
    parsed = instructions(text)
    found = {rule.__name__: list(rule(parsed)) for rule in RULES}
    return {name: texts for name, texts in found.items() if texts}


def base_is_chosen(parsed: list[Instruction]) -> Iterator[str]:
    """A base is an argument without default, or has a digest; an argument is refused without one."""
    for each in _of(parsed, "FROM"):
        image = each.text.split()[0]
        if image != "${BASE}" and "@sha256:" not in image:
            yield f"FROM {image}"
    if any("=" in each.text for each in _of(parsed, "ARG") if each.text.startswith("BASE")):
        yield "BASE has a default"
    if not any("${BASE}" in each.text and "*@sha256:*" in each.text for each in _of(parsed, "RUN")):
        yield "nothing looks whether BASE has a digest"


def runs_as_a_user(parsed: list[Instruction]) -> Iterator[str]:
    """By number, so that Kubernetes can see that it is not root."""
    users = [each.text for each in _last(parsed) if each.word == "USER"]
    if users[-1:] != ["1000:1000"]:
        yield f"the user is {users[-1] if users else 'root'}"


def pins_versions(parsed: list[Instruction]) -> Iterator[str]:
    """All of pip's versions are those of constraints.txt."""
    for each in _of(parsed, "RUN"):
        for call in re.findall(r"pip install[^&|;]*", each.text):
            if "-c constraints.txt" not in call:
                yield call.strip()


def no_build_tools(parsed: list[Instruction]) -> Iterator[str]:
    """The last stage installs no compiler that was not asked for, and no pip packages."""
    for each in _last(parsed):
        if each.word == "RUN" and re.search(
            r"\b(gcc|g\+\+|build-essential|python3-dev|pip install)\b", each.text
        ):
            yield each.text
        if each.word == "ARG" and re.fullmatch(r"COMPILER=(?!\"\"$).+", each.text):
            yield each.text
    if len(list(_of(parsed, "FROM"))) < 2:
        yield "one stage: what built is what runs"


def asks_for_a_token(parsed: list[Instruction]) -> Iterator[str]:
    """A Ray node that is started from the image asks for a token."""
    if not any(each.word == "ENV" and "RAY_AUTH_MODE=token" in each.text.split() for each in _last(parsed)):
        yield "RAY_AUTH_MODE is not token"


def keeps_memory_flat(parsed: list[Instruction]) -> Iterator[str]:
    """A Ray node that is started from the image, and all that it starts, use two of glibc's arenas."""
    if not any(each.word == "ENV" and "MALLOC_ARENA_MAX=2" in each.text.split() for each in _last(parsed)):
        yield "MALLOC_ARENA_MAX is not 2"


def tells_its_health(parsed: list[Instruction]) -> Iterator[str]:
    """By Ray's own check."""
    if not any(each.word == "HEALTHCHECK" and '"health-check"' in each.text for each in _last(parsed)):
        yield "no HEALTHCHECK"


def says_what_it_is(parsed: list[Instruction]) -> Iterator[str]:
    """The labels of the OCI that registries show."""
    labels = " ".join(each.text for each in _last(parsed) if each.word == "LABEL")
    for name in ("title", "description", "licenses", "version", "revision", "created"):
        if f"org.opencontainers.image.{name}=" not in labels:
            yield f"no label {name}"


def holds_no_secret(parsed: list[Instruction]) -> Iterator[str]:
    """Arguments and variables stay in the image for everybody to read."""
    for each in parsed:
        if each.word in ("ARG", "ENV") and re.search(r"(SECRET|PASSWORD|_KEY|TOKEN)\w*=", each.text):
            yield each.text
        if each.word == "COPY" and each.text.split()[0] == ".":
            yield "all of the folder is copied"


RULES: tuple[Rule, ...] = (
    base_is_chosen,
    runs_as_a_user,
    pins_versions,
    no_build_tools,
    asks_for_a_token,
    keeps_memory_flat,
    tells_its_health,
    says_what_it_is,
    holds_no_secret,
)


def _of(parsed: list[Instruction], word: str) -> Iterator[Instruction]:
    return (each for each in parsed if each.word == word)


def _last(parsed: list[Instruction]) -> list[Instruction]:
    stage = max(each.stage for each in parsed)
    return [each for each in parsed if each.stage == stage]
