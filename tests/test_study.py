"""The study of optimisation: each contender trains with its own rules, and the report shows all."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks are not part of the package

from benchmarks.study import CONTENDERS, SCALES, TUNING, Run, train
from benchmarks.study_report import table, write_report

CPU = torch.device("cpu")


def tiny(contender: str, seed: int = 0, lr: float = 0.05) -> Run:
    return Run(contender, "mlp2", 2, lr, seed, 0.1, "digits", 160, 60, 16, "none")


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_contender_trains_alike_each_time(name: str) -> None:
    row = train(tiny(name), CPU, None)
    again = train(tiny(name), CPU, None)
    assert {k: v for k, v in row.items() if k != "seconds"} == {
        k: v for k, v in again.items() if k != "seconds"
    }
    assert not row["diverged"]
    assert len(row["epoch_losses"]) == 2
    assert len(row["rates"]) == 1
    assert 0 <= row["accuracy"] <= 100


def test_every_run_of_the_plans_is_of_a_contender_and_none_is_there_twice() -> None:
    for plan in SCALES.values():
        for part in plan().values():
            assert {run.contender for run in part} <= set(CONTENDERS)
            assert len(set(part)) == len(part)


def test_the_report_gives_means_over_seeds_and_keeps_the_grid_apart(tmp_path: Path) -> None:
    rows = []
    for seed, accuracy in ((0, 30.0), (1, 34.0), (TUNING, 99.0)):
        rows.append(
            {
                "run": asdict(tiny("fit", seed)) | {"model": "vgg8"},
                "accuracy": accuracy,
                "final_loss": 1.5,
                "epoch_losses": [2.0, 1.5],
                "gradient_ratios": [0.1, 0.2],
                "rates": [0.1, 0.2],
            }
        )
    assert "| vgg8 | digits | 160 | 2 | fit | 0.05 | 32.0 ± 2.8 (2) | 1.500 |" in table(rows)
    write_report(tmp_path, "cpu", rows)
    assert "| vgg8 | fit | 0.05 | 99.0 |" in (tmp_path / "cpu-study.md").read_text()
    assert (tmp_path / "cpu-study.png").read_bytes().startswith(b"\x89PNG")
    write_report(tmp_path, "cpu", [])
