"""Losses by epoch: means of images, in record and report, in the epoch they belong to."""

import logging

import pytest
import torch

from defectlab.engine.losses import LossHistory, ValidationLosses


def test_means_are_of_images_not_of_batches_and_of_known_labels():
    losses = ValidationLosses()
    losses.add(torch.tensor([1.0, 2.0, 30.0]), [0, 0, 1])
    losses.add(torch.tensor([6.0, 1000.0]), [0, -1])
    assert losses.means() == {"val_good_loss": 3.0, "val_anomalous_loss": 30.0}


def test_a_label_without_images_has_no_mean():
    losses = ValidationLosses()
    assert losses.means() == {}
    losses.add(torch.tensor([[2.0], [4.0]]), [1, 1])
    assert losses.means() == {"val_anomalous_loss": 3.0}


def test_the_history_keeps_each_value_in_its_epoch(caplog: pytest.LogCaptureFixture):
    history = LossHistory()
    history.amend({"val_good_loss": 9.0})  # a validation without any training belongs to no epoch
    history.add({"train_loss": 3.0})
    history.add({"train_loss": float("nan"), "val_good_loss": 2.0})
    history.add({"train_loss": 1.0})
    history.amend({"val_good_loss": 1.5})
    assert history.record() == {"train_loss": [3.0, None, 1.0], "val_good_loss": [None, 2.0, 1.5]}
    with caplog.at_level(logging.WARNING):
        history.warn()
    assert [record.getMessage() for record in caplog.records] == ["train_loss was not finite in 1 of 3 epochs"]
