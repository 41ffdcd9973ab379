"""The parts of a record that are known before a training."""

from defectlab.data.manifest.protocol import Protocol
from defectlab.results.run.setup_records import ProtocolRecord


def test_the_protocol_of_a_manifest_is_recorded_whole() -> None:
    protocol = Protocol(
        test_split_mode="from_dir", test_split_ratio=None, val_split_mode="from_test", val_split_ratio=0.5,
        validation_is_test=False, test_normal_from="their own folder", validation_from="the test images",
        counts={"test": {"good": 1}}, group="(.*)_", group_counts={"test": {"good": 2}},
    )  # fmt: skip
    record = ProtocolRecord.from_dict(protocol.to_dict() | {"later": 1})
    assert record.to_dict() == protocol.to_dict() | {"later": 1}
    assert protocol.to_dict()["parts"] == record.group_counts == {"test": {"good": 2}}
    assert Protocol.from_dict(protocol.to_dict()) == protocol
    old = {key: value for key, value in protocol.to_dict().items() if key not in ("parts", "task", "n_val_good")}
    assert ProtocolRecord.from_dict(old).to_dict() == old
    assert record.threshold_source == "validation"
