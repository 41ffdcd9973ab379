"""Nothing leaves the machine: other packages' reports to their makers are off once DefectLab is imported."""

import os

import pytest

from defectlab.utils.telemetry import SWITCHES, switch_off_telemetry


def test_importing_it_switches_them_off_for_child_processes_too():
    assert set(SWITCHES) <= set(os.environ)


def test_a_person_who_said_otherwise_is_heard(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    monkeypatch.delenv("WANDB_ERROR_REPORTING")
    switch_off_telemetry()
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["WANDB_ERROR_REPORTING"]) == ("false", "false")


def test_the_packages_listen_to_these_switches(monkeypatch: pytest.MonkeyPatch):
    utils, wandb_env = pytest.importorskip("mlflow.telemetry.utils"), pytest.importorskip("wandb.env")
    monkeypatch.setattr(utils, "_IS_IN_CI_ENV_OR_TESTING", False)  # mlflow reports nothing from a test
    assert utils.is_telemetry_disabled()
    assert not wandb_env.error_reporting_enabled()
    for name, value in SWITCHES.items():
        monkeypatch.setenv(name, "false" if value == "true" else "true")
    assert not utils.is_telemetry_disabled()
    assert wandb_env.error_reporting_enabled()
