"""Every error redan raises on purpose. Each message says what is wrong and what to do about it.

RedanError                  anything below; the command line prints it as one sentence, exit code 2
├── ThreatModelError        the threat-model file: unreadable, unknown key, wrong type
├── DataError               the user's rows: missing, outside the bounds, not fitting the model
├── TargetError             the user's model: cannot be built, refuses the data, changes while attacked
│   ├── TrainingModeError   a submodule is in training mode
│   └── NotCertifiableError the model does something that has no proven bound here
├── AccessError             an attack asked for more than the attacker may know
│   └── NoGradientError     the model's answers have no gradient in its input
├── SetError                an attack or a row does not fit the perturbation set
├── SettingError            a value the caller chose is out of its range
├── NotBuiltError           known to redan by name, but not built yet
├── PreflightError          the set-up would make every number wrong
├── EvidenceError           a run folder cannot be written or read, or does not hold together
├── ReportError             a report cannot be shown in the form that was asked for
└── BrokenOffError          a run was interrupted, and can go on
"""

from __future__ import annotations


class RedanError(Exception):
    """Base of all errors that redan raises on purpose: one sentence, cause then remedy."""


class ThreatModelError(RedanError):
    """The threat-model file cannot be used as it stands."""


class DataError(RedanError):
    """The user's rows cannot be used as they stand."""


class TargetError(RedanError):
    """The user's model cannot be built or asked."""


class TrainingModeError(TargetError):
    """A submodule is in training mode, so every number about the model would be wrong."""


class NotCertifiableError(TargetError):
    """The model does something for which redan has no proven bound; attacks still work on it."""


class AccessError(RedanError):
    """An attack asked for an answer that the attacker's knowledge does not include."""


class NoGradientError(AccessError):
    """The model's answers have no gradient in its input, whatever the attacker may know."""


class SetError(RedanError):
    """A perturbation set that the attack, or the data, does not fit."""


class SettingError(RedanError):
    """A value that the caller chose is out of its range."""


class NotBuiltError(RedanError):
    """Something that redan knows by name and does not do yet."""


class PreflightError(RedanError):
    """The set-up would make every number wrong; nothing was attacked."""


class EvidenceError(RedanError):
    """A run folder that cannot be written, read or believed."""


class BrokenOffError(RedanError):
    """A run was interrupted; what was finished is kept, and it can go on. The command line's exit code is 130."""


class ReportError(RedanError):
    """A report cannot be shown in the form that was asked for."""
