"""The forms in which an encoder can be written, and which MXNet versions load them and compute them right."""

from __future__ import annotations

from dataclasses import dataclass

from bertsym.errors import UsageError

#: form -> purpose
FORMS = {
    "portable": "without a target version, operators of MXNet 1.4 only, which every later version and every language "
    "binding loads",
    "gluonnlp": "the graph that GluonNLP 0.10 itself exports, with interleaved attention; needs MXNet 1.6 or later",
    "fast": "faster at inference on a CPU; if only [CLS] is used, the last layer is computed for that position alone "
    "(same result)",
}


@dataclass(frozen=True)
class Target:
    """A release line of MXNet for which symbols are written."""

    release: str  #: the last release of the line; files name it as their writer, and older ones warn
    erf: bool = False  #: whether gelu must be written with erf, which is slower on a CPU
    interleaved: bool = True  #: whether it has the operators of GluonNLP's interleaved attention


TARGETS = {
    "1.4": Target("1.4.1", erf=True, interleaved=False),  # has no LeakyReLU gelu
    "1.5": Target("1.5.1", erf=True, interleaved=False),  # computes wrong gradients of LeakyReLU gelu
    "1.6": Target("1.6.0"),
    "1.7": Target("1.7.0", erf=True),  # its LeakyReLU gelu is off by 5e-3 (MKLDNN)
    "1.8": Target("1.8.0"),
    "1.9": Target("1.9.1"),
}


@dataclass(frozen=True)
class Form:
    """A form of an encoder."""

    name: str = "portable"  #: a key of FORMS, or a form of `encoders.graph` that runs here and is never written
    erf: bool = True  #: whether gelu is x/2 * (1 + erf(x / sqrt 2)) rather than one operator

    @property
    def first_only(self) -> bool:
        """Whether the last layer can be computed for position 0 alone."""
        return self.name not in ("portable", "gluonnlp")


def choose_form(name: str | None = None, target: str | None = None) -> Form:
    """Choose the form `name`, ``portable`` by default, for the MXNet `target`.

    Without a target, the portable form is right in every MXNet from 1.4 on, and the other forms in 1.6 and later except
    1.7.
    Raises UsageError for a form that the target does not load, and for unknown names.
    """
    name = name or "portable"
    if name not in FORMS:
        raise UsageError(f"form {name!r} is not one of {', '.join(FORMS)}")
    if target is None:
        return Form(name, erf=name == "portable")
    if target not in TARGETS:
        raise UsageError(f"target MXNet {target!r} is not one of {', '.join(TARGETS)}")
    if name == "gluonnlp" and not TARGETS[target].interleaved:
        raise UsageError(f"the form gluonnlp needs MXNet 1.6 or later: for {target} use the form portable")
    return Form(name, TARGETS[target].erf)
