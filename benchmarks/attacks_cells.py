"""The literal table of `make bench-attacks`: contests, and each peer's five settings for them.

A contest is one attack in one norm under one budget: forward plus backward passes a row, as a wrapper around the model
counts them. A setting whose measured passes are more than 10 % above the budget is shown, and beats nobody. Settings
are chosen by rows that no table reports. A peer that stands in no list has no such attack.

Three kinds of contest are not about one row of one model in a norm ball: spatial ones (turns and shifts, judged by
`judge_spatial.py`), universal ones (one change, fitted on rows that no table reports; passes count a fitted row), and
those of transfer (the attacker looks into another model than the victim, on which success is judged).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

Norm = Literal["linf", "l2", "l1", "l0", "spatial"]
Setting = dict[str, Any]

PEERS = ("art", "foolbox", "torchattacks", "adv_lib", "cleverhans", "pyautoattack")
RADII = {"linf": 0.1, "l2": 1.5, "l1": 10.0, "spatial": 1.0}
DEGREES, PIXELS = 10.0, 2.0  # either way: the range of all spatial contests
LENT = {"natural": "residual", "residual": "natural", "robust": "natural"}  # victim: what its attacker looks into
LENT_EPS = 0.15  # inputs found on another model break few rows at 0.1
FITTED = (256, 500)  # the first test image and how many: neither reported nor used to choose a setting


class Contest(NamedTuple):
    """One attack in one norm. eps: the radius, inf for the nearest adversarial input.

    lent: by victim, the model that the attacker looks into instead. fitted: the test images that he fits one change on.
    seconds: of CPU time, after which a run is ended.
    """

    attack: str
    norm: Norm
    passes: int
    eps: float
    peers: dict[str, tuple[str, tuple[Setting, ...]]]  # by name: the function of the peer's adapter, and its settings
    lent: dict[str, str] | None = None
    fitted: tuple[int, int] | None = None
    seconds: float = 300.0

    @property
    def name(self) -> str:
        """Unique among all contests."""
        return f"{self.attack}-{self.norm}"

    @property
    def nearest(self) -> bool:
        """Whether distances count, not a radius."""
        return math.isinf(self.eps)

    def seen(self, model: str) -> str:
        """The model that the attacker of `model` looks into."""
        return model if self.lent is None else self.lent[model]


def _inside(attack: str, norm: Norm, passes: int, **peers: tuple[str, tuple[Setting, ...]]) -> Contest:
    return Contest(attack, norm, passes, RADII[norm], peers)


def _near(attack: str, norm: Norm, passes: int, **peers: tuple[str, tuple[Setting, ...]]) -> Contest:
    return Contest(attack, norm, passes, math.inf, peers)


def _each(fixed: Setting, **options: tuple[Any, ...]) -> tuple[Setting, ...]:
    """Settings that share `fixed`, the i-th with the i-th of every option."""
    return tuple(fixed | dict(zip(options, values, strict=True)) for values in zip(*options.values(), strict=True))


# -- inside a radius ---------------------------------------------------------------------------------------

_ONE: tuple[Setting, ...] = ({},)
_BIM = _each({"steps": 20}, share=(0.05, 0.1, 0.15, 0.2, 0.3))
_BIM_PGD = tuple(setting | {"start": False} for setting in _BIM)
_PGD = _each({"steps": 40, "start": True}, share=(0.025, 0.0625, 0.1, 0.15, 0.25))
_PGD_L1 = _each({"steps": 40, "start": True}, share=(0.05, 0.1, 0.25, 0.5, 1.0))
_MOMENTUM = _each({"steps": 20}, share=(0.05, 0.1, 0.1, 0.2, 0.05), decay=(1.0, 1.0, 0.9, 1.0, 0.75))
_RHO = (0.75, 0.65, 0.85, 0.5, 0.9)
_RHO_APGD = _each({"steps": 100, "loss": "ce"}, rho=_RHO)
_RHO_DLR = _each({"steps": 100, "loss": "dlr"}, rho=_RHO)
_SHARE_APGD = _each({"steps": 66, "loss": "cross_entropy"}, share=(2.0, 1.0, 0.5, 0.25, 0.1))
_SHARE_DLR = _each({"steps": 66, "loss": "difference_logits_ratio"}, share=(2.0, 1.0, 0.5, 0.25, 0.1))
_TARGETS = _each({"steps": 20, "targets": 9}, rho=_RHO)
_TARGETS_L1 = _each({"steps": 36, "targets": 5}, rho=_RHO)
_QUERIES = _each({"queries": 500}, p=(0.8, 0.5, 0.3, 0.1, 0.05))
_QUERIES_ART = _each({"queries": 350}, p=(0.8, 0.5, 0.3, 0.1, 0.05))  # it asks about twice a step
_QUERIES_ART_L2 = _each({"queries": 200}, p=(0.8, 0.5, 0.3, 0.1, 0.05))


def _line(kind: str, passes: int, steps: int) -> Contest:
    """One of the successors of MI-FGSM, which only torchattacks has too."""
    settings = _each({"steps": steps, "kind": kind}, share=(0.1, 0.2, 0.1, 0.2, 0.3), decay=(1.0, 1.0, 0.5, 0.5, 0.5))
    return _inside(kind.lower(), "linf", passes, torchattacks=("momentum_torchattacks", settings))


INSIDE: tuple[Contest, ...] = (
    _inside("fgsm", "linf", 5, art=("fgsm_art", _ONE), foolbox=("fgsm_foolbox", _ONE),
            torchattacks=("fgsm_torchattacks", _ONE), cleverhans=("fgsm_cleverhans", _ONE)),
    _inside("fgsm", "l2", 5, art=("fgsm_art", _ONE), foolbox=("fgsm_foolbox", _ONE),
            cleverhans=("fgsm_cleverhans", _ONE)),
    _inside("bim", "linf", 41, art=("pgd_art", _BIM_PGD), foolbox=("pgd_foolbox", _BIM_PGD),
            torchattacks=("bim_torchattacks", _BIM), adv_lib=("pgd_adv_lib", _BIM_PGD),
            cleverhans=("pgd_cleverhans", _BIM_PGD)),
    _inside("bim", "l2", 41, art=("pgd_art", _BIM_PGD), foolbox=("pgd_foolbox", _BIM_PGD),
            torchattacks=("pgd_torchattacks", _BIM_PGD), cleverhans=("pgd_cleverhans", _BIM_PGD)),
    _inside("pgd", "linf", 81, art=("pgd_art", _PGD), foolbox=("pgd_foolbox", _PGD),
            torchattacks=("pgd_torchattacks", _PGD), adv_lib=("pgd_adv_lib", _PGD),
            cleverhans=("pgd_cleverhans", _PGD)),
    _inside("pgd", "l2", 81, art=("pgd_art", _PGD), foolbox=("pgd_foolbox", _PGD),
            torchattacks=("pgd_torchattacks", _PGD), cleverhans=("pgd_cleverhans", _PGD)),
    _inside("pgd", "l1", 81, art=("pgd_art", _PGD_L1), foolbox=("pgd_foolbox", _PGD_L1)),
    _inside("sparse-descent", "l1", 81,
            foolbox=("sparse_foolbox",
                     _each({"steps": 40}, share=(0.1, 0.1, 0.25, 0.25, 0.5), quantile=(0.99, 0.9, 0.99, 0.95, 0.99))),
            cleverhans=("sparse_cleverhans",
                        _each({"steps": 40}, share=(0.1, 0.1, 0.25, 0.25, 0.5), sparsity=(99, 90, 99, 95, 99)))),
    _inside("mi-fgsm", "linf", 41, art=("momentum_art", _MOMENTUM), foolbox=("momentum_foolbox", _MOMENTUM),
            torchattacks=("momentum_torchattacks", tuple(s | {"kind": "MIFGSM"} for s in _MOMENTUM))),
    _inside("mi-fgsm", "l2", 41, art=("momentum_art", _MOMENTUM), foolbox=("momentum_foolbox", _MOMENTUM)),
    _line("NIFGSM", 41, 20),
    _line("SINIFGSM", 101, 10),
    _line("VMIFGSM", 121, 10),
    _line("VNIFGSM", 121, 10),
    _line("DIFGSM", 41, 20),
    _line("TIFGSM", 41, 20),
    _inside("apgd-ce", "linf", 204, art=("apgd_art", _SHARE_APGD), torchattacks=("apgd_torchattacks", _RHO_APGD),
            adv_lib=("apgd_adv_lib", _RHO_APGD), pyautoattack=("apgd_pyautoattack", _RHO_APGD)),
    _inside("apgd-ce", "l2", 204, art=("apgd_art", _SHARE_APGD), torchattacks=("apgd_torchattacks", _RHO_APGD),
            adv_lib=("apgd_adv_lib", _RHO_APGD), pyautoattack=("apgd_pyautoattack", _RHO_APGD)),
    _inside("apgd-ce", "l1", 204, art=("apgd_art", _SHARE_APGD), adv_lib=("apgd_adv_lib", _RHO_APGD),
            pyautoattack=("apgd_pyautoattack", _RHO_APGD)),
    _inside("apgd-dlr", "linf", 204, art=("apgd_art", _SHARE_DLR), torchattacks=("apgd_torchattacks", _RHO_DLR),
            adv_lib=("apgd_adv_lib", _RHO_DLR), pyautoattack=("apgd_pyautoattack", _RHO_DLR)),
    _inside("apgd-dlr", "l2", 204, art=("apgd_art", _SHARE_DLR), torchattacks=("apgd_torchattacks", _RHO_DLR),
            adv_lib=("apgd_adv_lib", _RHO_DLR), pyautoattack=("apgd_pyautoattack", _RHO_DLR)),
    _inside("apgd-t", "linf", 380, torchattacks=("apgd_t_torchattacks", _each({"steps": 20}, rho=_RHO)),
            adv_lib=("apgd_t_adv_lib", _TARGETS), pyautoattack=("apgd_t_pyautoattack", _TARGETS)),
    _inside("apgd-t", "l2", 380, torchattacks=("apgd_t_torchattacks", _each({"steps": 20}, rho=_RHO)),
            adv_lib=("apgd_t_adv_lib", _TARGETS), pyautoattack=("apgd_t_pyautoattack", _TARGETS)),
    _inside("apgd-t", "l1", 380, adv_lib=("apgd_t_adv_lib", _TARGETS_L1),
            pyautoattack=("apgd_t_pyautoattack", _TARGETS_L1)),
    *(_inside("fab-t", norm, 380,
              torchattacks=("fab_torchattacks", _each({"steps": 12, "targeted": True}, pull=(0.1, 0.1, 0.3, 0.1, 0.5),
                                                      backward=(0.9, 0.9, 0.9, 0.7, 0.9),
                                                      overshoot=(1.05, 1.2, 1.05, 1.05, 1.1))),
              pyautoattack=("fab_pyautoattack", _each({"steps": 12, "targets": 9}, pull=(0.1, 0.1, 0.3, 0.1, 0.5),
                                                      backward=(0.9, 0.9, 0.9, 0.7, 0.9),
                                                      overshoot=(1.05, 1.2, 1.05, 1.05, 1.1))))
      for norm in ("linf", "l2", "l1")),
    _inside("square", "linf", 501, art=("square_art", _QUERIES_ART), torchattacks=("square_torchattacks", _QUERIES),
            pyautoattack=("square_pyautoattack", _QUERIES)),
    _inside("square", "l2", 501, art=("square_art", _QUERIES_ART_L2), torchattacks=("square_torchattacks", _QUERIES),
            pyautoattack=("square_pyautoattack", _QUERIES)),
    _inside("square", "l1", 501, pyautoattack=("square_pyautoattack", _QUERIES)),
)  # fmt: skip

# -- the nearest -------------------------------------------------------------------------------------------

_CW = _each({"searches": 3, "steps": 100}, rate=(0.01, 0.03, 0.05, 0.1, 0.05), weight=(1.0, 1.0, 1.0, 1.0, 10.0))
_CW_ART = _each({"searches": 3}, tries=(2, 2, 2, 1, 1), steps=(8, 8, 8, 11, 11), rate=(0.3, 1.0, 0.5, 0.3, 1.0),
                weight=(1.0, 1.0, 10.0, 1.0, 1.0))  # fmt: skip
_EAD = _each({"searches": 3, "steps": 66}, rate=(0.01, 0.03, 0.01, 0.03, 0.1), weight=(1.0, 1.0, 10.0, 1.0, 1.0),
             beta=(0.01, 0.01, 0.01, 0.1, 0.01))  # fmt: skip
_DDN = _each({"steps": 100}, start=(1.0, 1.0, 1.0, 0.3, 1.0), gamma=(0.05, 0.1, 0.02, 0.05, 0.2))
_FMN = {
    "linf": _each({"steps": 100}, rate=(10.0, 10.0, 1.0, 5.0, 20.0), gamma=(0.05, 0.3, 0.05, 0.05, 0.1)),
    "l2": _each({"steps": 100}, rate=(0.02, 0.05, 0.1, 0.2, 1.0), gamma=(0.05, 0.05, 0.05, 0.05, 0.3)),
    "l1": _each({"steps": 100}, rate=(0.02, 0.05, 0.1, 0.2, 1.0), gamma=(0.05, 0.05, 0.05, 0.05, 0.3)),
    "l0": _each({"steps": 100}, rate=(1.0, 1.0, 2.0, 5.0, 10.0), gamma=(0.05, 0.3, 0.3, 0.1, 0.3)),
}
_PDPGD = _each({"steps": 100}, rate=(0.1, 0.1, 0.05, 0.2, 0.3), dual_rate=(0.1, 0.5, 0.5, 0.5, 0.5))
_FAB_OPTIONS: dict[str, tuple[Any, ...]] = {
    "pull": (0.1, 0.1, 0.3, 0.1, 0.5),
    "backward": (0.9, 0.9, 0.9, 0.7, 0.9),
    "overshoot": (1.05, 1.2, 1.05, 1.05, 1.1),
}
_FAB_ADV_LIB = _each({"steps": 30}, **_FAB_OPTIONS)
_FAB_TORCHATTACKS = _each({"steps": 30, "targeted": False}, **_FAB_OPTIONS)
_FAB_PYAUTOATTACK = _each({"steps": 30, "targets": 0}, **_FAB_OPTIONS)
_OVERSHOOT = _each({"steps": 50}, overshoot=(0.02, 0.005, 0.05, 0.1, 0.2))
_CANDIDATES = _each({}, steps=(16, 25, 50, 16, 25), candidates=(10, 5, 3, 10, 5),
                    overshoot=(0.02, 0.02, 0.02, 0.1, 0.05))  # fmt: skip
_GRADS = _each({"steps": 27, "candidates": 10}, overshoot=(1e-6, 0.005, 0.02, 0.05, 0.1))
_SIGMA = _each({"steps": 100}, sigma=(1e-3, 1e-3, 1e-3, 1e-3, 0.1), rate=(1.0, 0.5, 1.0, 1.0, 1.0),
               threshold=(0.3, 0.3, 0.3, 0.1, 0.3), turn=(0.01, 0.01, 0.05, 0.02, 0.01))  # fmt: skip


def _each_norm() -> tuple[Contest, ...]:
    every: tuple[Norm, ...] = ("linf", "l2", "l1", "l0")
    return (
        *(_near("fmn", n, 202, foolbox=("fmn_foolbox", _FMN[n]), adv_lib=("fmn_adv_lib", _FMN[n])) for n in every),
        *(_near("pdpgd", n, 202, adv_lib=("pdpgd_adv_lib", _PDPGD)) for n in every),
        *(
            _near("fab", n, 335, torchattacks=("fab_torchattacks", _FAB_TORCHATTACKS),
                  adv_lib=("fab_adv_lib", _FAB_ADV_LIB), pyautoattack=("fab_pyautoattack", _FAB_PYAUTOATTACK))
            for n in every[:3]
        ),
    )  # fmt: skip


NEAREST: tuple[Contest, ...] = (
    _near("lbfgs", "l2", 202),
    _near("engine", "l2", 181),
    _near("cw", "l2", 602, art=("cw_l2_art", _CW_ART), foolbox=("cw_l2_foolbox", _CW),
          torchattacks=("cw_l2_torchattacks", _each({"steps": 300}, rate=(0.01, 0.01, 0.03, 0.03, 0.05),
                                                    weight=(1.0, 10.0, 1.0, 10.0, 3.0))),
          adv_lib=("cw_l2_adv_lib", _CW), cleverhans=("cw_l2_cleverhans", _CW)),
    _near("cw-long", "l2", 1802, adv_lib=("cw_l2_adv_lib", tuple(s | {"searches": 9} for s in _CW))),
    _near("cw", "linf", 602,
          art=("cw_linf_art", _each({}, steps=(5, 5, 10, 10, 5), rate=(0.1, 0.5, 0.1, 0.3, 0.3),
                                    weight=(1.0, 1.0, 1.0, 5.0, 5.0), factor=(4.0, 4.0, 4.0, 4.0, 2.0),
                                    fall=(0.5, 0.5, 0.5, 0.5, 0.7))),
          adv_lib=("cw_linf_adv_lib", _each({}, steps=(20, 10, 20, 40, 20), rate=(0.1, 0.1, 0.3, 0.1, 0.05),
                                            weight=(1.0, 1.0, 1.0, 1.0, 1.0), factor=(4.0, 4.0, 4.0, 4.0, 4.0),
                                            fall=(0.8, 0.9, 0.8, 0.7, 0.8)))),
    _near("cw", "l0", 602, art=("cw_l0_art", _each({"searches": 1}, steps=(4, 4, 6, 6, 10), tries=(1, 1, 1, 1, 1),
                                                   rate=(0.3, 1.0, 0.5, 1.0, 0.5),
                                                   weight=(10.0, 10.0, 10.0, 1.0, 10.0)))),
    _near("ead", "l1", 602, art=("ead_art", _each({"searches": 3}, steps=(7, 7, 7, 7, 7),
                                                  rate=(0.01, 0.03, 0.01, 0.03, 0.1),
                                                  weight=(1.0, 1.0, 10.0, 1.0, 1.0),
                                                  beta=(0.01, 0.01, 0.01, 0.1, 0.01))),
          foolbox=("ead_foolbox", _EAD), torchattacks=("ead_torchattacks", _EAD)),
    _near("ddn", "l2", 202, foolbox=("ddn_foolbox", _DDN), adv_lib=("ddn_adv_lib", _DDN)),
    *_each_norm(),
    _near("sigma-zero", "l0", 202, adv_lib=("sigma_zero_adv_lib", _SIGMA)),
    _near("jsma", "l0", 202,
          art=("jsma_art", _each({}, theta=(1.0, 1.0, 0.5, -1.0, -0.5), share=(0.15, 0.07, 0.05, 0.07, 0.05))),
          torchattacks=("jsma_torchattacks",
                        _each({}, theta=(1.0, 0.5, -1.0, -0.5, 0.7), share=(0.04, 0.04, 0.04, 0.04, 0.04)))),
    _near("deepfool", "l2", 335, art=("deepfool_art", _GRADS), foolbox=("deepfool_foolbox", _CANDIDATES),
          torchattacks=("deepfool_torchattacks", _OVERSHOOT), adv_lib=("deepfool_adv_lib", _OVERSHOOT)),
    _near("deepfool", "linf", 335, foolbox=("deepfool_foolbox", _CANDIDATES),
          adv_lib=("deepfool_adv_lib", _OVERSHOOT)),
)  # fmt: skip

# Attacks that redan does not have: they stand in the pool of the best, and among the best peers.
OTHERS: tuple[Contest, ...] = (
    *(_near("trust-region", norm, 335, adv_lib=("trust_region_adv_lib", _each(
        {"candidates": 9}, steps=(80, 80, 100, 100, 50), eps=(0.01, 0.001, 0.05, 0.1, 0.01) if norm == "l2" else
        (0.001, 0.0005, 0.005, 0.01, 0.001), adaptive=(True, True, False, False, False))))
      for norm in ("linf", "l2")),
    _near("superdeepfool", "l2", 335, adv_lib=("superdeepfool_adv_lib", _each(
        {"overshoot": 0.02, "search": 10}, steps=(3, 2, 5, 10, 20), inner=(10, 20, 5, 3, 1)))),
    _near("pdgd", "l2", 202, adv_lib=("pdgd_adv_lib", _PDPGD)),
    _near("alma", "l2", 202, adv_lib=("alma_adv_lib", _each(
        {"steps": 100}, rate=(0.1, 0.3, 0.1, 0.3, 1.0), start=(None, None, 1.0, 1.0, 1.0)))),
    _near("alma", "l1", 202, adv_lib=("alma_adv_lib", _each(
        {"steps": 100}, rate=(0.1, 0.5, 0.1, 0.5, 1.0), start=(None, None, 10.0, 10.0, 10.0)))),
    _near("vfga", "l0", 335, adv_lib=("vfga_adv_lib", _each(
        {}, steps=(16, 30, 50, 80, 100), samples=(10, 5, 5, 2, 1)))),
    _near("salt-and-pepper", "l0", 202, foolbox=("salt_and_pepper_foolbox", _each({}, steps=(200, 150, 100, 50, 25)))),
)  # fmt: skip

# -- shifted and turned, fitted on other rows, found on another model --------------------------------------

_RANGE: Setting = {"degrees": DEGREES, "pixels": PIXELS}
_SPATIAL_FOOLBOX = _each(_RANGE, rotations=(11, 5, 31, 15, 1), translations=(5, 7, 3, 4, 1), draws=(0, 0, 0, 0, 275))
_SPATIAL_ART = _each(_RANGE, rotations=(11, 31, 5, 2), translations=(5, 3, 5, 5))
_FITS = _each({"fooled": 1.0}, inner=("fgsm", "fgsm", "fgsm", "pgd", "deepfool"), passes=(18, 18, 14, 8, 2),
              options=({"eps": 0.1}, {"eps": 0.05}, {"eps": 0.2},
                       {"eps": 0.2, "eps_step": 0.1, "max_iter": 2, "verbose": False},
                       {"max_iter": 2, "epsilon": 0.02, "verbose": False}))  # fmt: skip


def _lent(kind: str, passes: int, **peers: tuple[str, tuple[Setting, ...]]) -> Contest:
    """MI-FGSM and its successors on another model than the victim."""
    return Contest(f"transfer-{kind}", "linf", passes, LENT_EPS, peers, lent=LENT)


def _lent_line(kind: str, passes: int, steps: int) -> Contest:
    settings = _each({"steps": steps, "kind": kind}, share=(0.1, 0.2, 0.1, 0.2, 0.05), decay=(1.0, 1.0, 0.5, 0.5, 1.0))
    return _lent(kind.lower(), passes, torchattacks=("momentum_torchattacks", settings))


ELSEWHERE: tuple[Contest, ...] = (
    _inside("grid", "spatial", 276, art=("spatial_art", _SPATIAL_ART), foolbox=("spatial_foolbox", _SPATIAL_FOOLBOX))
    ._replace(seconds=900.0),
    *(_inside(name, norm, 61, art=("universal_art", _FITS))._replace(fitted=FITTED, seconds=900.0)
      for name in ("uap", "universal-pgd") for norm in ("linf", "l2")),
    _lent("mi-fgsm", 41, art=("momentum_art", _MOMENTUM), foolbox=("momentum_foolbox", _MOMENTUM),
          torchattacks=("momentum_torchattacks", tuple(s | {"kind": "MIFGSM"} for s in _MOMENTUM))),
    _lent_line("NIFGSM", 41, 20),
    _lent_line("SINIFGSM", 101, 10),
    _lent_line("VMIFGSM", 121, 10),
    _lent_line("VNIFGSM", 121, 10),
    _lent_line("DIFGSM", 41, 20),
    _lent("tifgsm", 41, torchattacks=("tifgsm_torchattacks", _each(
        {"steps": 20}, share=(0.1, 0.1, 0.1, 0.2, 0.05), decay=(1.0, 1.0, 1.0, 1.0, 1.0), size=(5, 15, 3, 5, 5)))),
)  # fmt: skip

CONTESTS = (*INSIDE, *NEAREST, *OTHERS, *ELSEWHERE)
