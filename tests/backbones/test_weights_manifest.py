import json
from pathlib import Path

import pytest
import timm
import torchvision

from defectlab.backbones import weights, weights_download, weights_manifest
from defectlab.backbones.registry import REGISTRY
from defectlab_runtime.errors import WeightsError


def test_known_entries_agree_with_the_installed_libraries() -> None:
    checked = 0
    for entry in weights_manifest.known_entries():
        if entry.distribution:  # hashes seen here: test_weights.py
            continue
        if entry.library == "torchvision":
            architecture, _, member = entry.name.partition(".")
            known = torchvision.models.get_model_weights(architecture)[member]
            transforms = known.transforms()
            assert entry.url == known.url
            assert (list(entry.mean or ()), list(entry.std or ())) == (transforms.mean, transforms.std)
        else:
            cfg = timm.get_pretrained_cfg(entry.name.removesuffix(".safetensors"))
            assert (entry.url is None and entry.source) or entry.url in {
                cfg.url,
                f"https://huggingface.co/{cfg.hf_hub_id}/resolve/main/model.safetensors",
            }
            assert (entry.mean, entry.std, entry.input_size) == (cfg.mean, cfg.std, cfg.input_size[1:])
        # No invented hashes: a published prefix stands in the file's name, nothing else is claimed.
        assert entry.sha256 is None
        assert entry.sha256_prefix is None or f"-{entry.sha256_prefix}." in entry.file
        checked += 1
    assert checked >= 10


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "efficientnet_b7", "cspdarknet53"])
def test_every_backbone_of_the_issue_has_a_source(name: str) -> None:
    assert weights_manifest.entries_for(name)[0].url
    assert name in REGISTRY


def test_names_mean_the_first_of_an_order() -> None:
    assert [entry.name for entry in weights_manifest.entries_for("resnet50")] == [
        "resnet50.IMAGENET1K_V1",
        "resnet50.IMAGENET1K_V2",
    ]
    assert weights_manifest.entries_for("resnet50-11ad3fa6.pth")[0].name == "resnet50.IMAGENET1K_V2"
    assert weights_manifest.entries_for("efficientnet_b7")[1].architecture == "tf_efficientnet_b7"


def test_list_and_verify(home: Path) -> None:
    folder = home / "weights"
    (folder / "own.pth").write_bytes(b"a")
    (folder / "resnet18-f37072fd.pth").write_bytes(b"b")
    (folder / "cspdarknet53.ra_in1k.safetensors").write_bytes(b"c")
    states = {row.file: row.state for row in weights.list_weights()}
    assert states["own.pth"] == "unrecorded"
    assert states["resnet18-f37072fd.pth"] == "changed"
    assert states["cspdarknet53.ra_in1k.safetensors"] == "unrecorded"
    assert states["resnet50-0676ba61.pth"] == "absent"
    assert {row.file for row in weights.verify()} == {file for file, state in states.items() if state != "absent"}
    assert [row.file for row in weights.verify(["own"])] == ["own.pth"]
    with pytest.raises(WeightsError, match=r"Did you mean 'own\.pth'"):
        weights.verify(["owm.pth"])


ENTRY = {"file": "a.pth", "name": "a", "architecture": "resnet18", "library": "timm"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[" * 100_000,
        '{"entries": ["a.pth"]}',
        '{"entries": [{}]}',
        *(
            json.dumps({"entries": [ENTRY | change]})
            for change in (
                *({"file": 5}, {"file": None}, {"file": "../a.pth"}, {"name": None}, {"sha256": 7}),
                *({"mean": "abc"}, {"mean": [0.5]}, {"std": ["a", "b", "c"]}, {"input_size": [224]}),
            )
        ),
    ],
)
def test_a_damaged_manifest_is_named(home: Path, text: str) -> None:
    (home / "weights" / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"manifest\.json is damaged .*Mend it or delete it"):
        weights.list_weights()


def test_an_entry_keeps_its_values(home: Path) -> None:
    given = ENTRY | {"mean": [0, 0.5, 1], "input_size": [224, 224], "licence": None, "of a later version": [1]}
    (home / "weights" / "manifest.json").write_text(json.dumps({"entries": [given]}), encoding="utf-8")
    (entry,) = weights_manifest.local_entries()
    assert (entry.file, entry.mean, entry.input_size, entry.licence) == ("a.pth", (0, 0.5, 1), (224, 224), None)


def test_a_published_hash_counts_under_any_file_name_and_a_name_only_without_one(tmp_path: Path) -> None:
    sha256 = "ddb28fec" + "0" * 56
    entry, how = weights_manifest.entry_of_file(tmp_path / "renamed.pth", sha256)
    assert entry is not None
    assert (entry.name, entry.mean) == ("tf_efficientnet_b7.ap_in1k", (0.5, 0.5, 0.5))
    assert "ddb28fec" in how
    entry, how = weights_manifest.entry_of_file(tmp_path / "resnet18-f37072fd.pth", "1" * 64)
    assert entry is None
    assert "other content" in how
    entry, how = weights_manifest.entry_of_file(tmp_path / "cspdarknet53.ra_in1k.safetensors", "1" * 64)
    assert entry is not None
    assert "no checksum" in how


def test_gated_weights_say_where_they_are_and_how_they_come_in() -> None:
    with pytest.raises(WeightsError, match=r"gated: accept its licence .*dinov3.*weights import FILE --name vit_small"):
        weights_download.get("vit_small_patch16_dinov3")
    address = next(row.address for row in weights.list_weights() if row.name == "vit_small_patch16_dinov3.lvd1689m")
    assert address.startswith("gated: https://huggingface.co/timm/vit_small_patch16_dinov3.lvd1689m (licence: https:")
    assert address.endswith("then weights import FILE --name vit_small_patch16_dinov3")


def test_every_file_that_is_not_here_has_an_address_or_a_package(home: Path) -> None:
    absent = [row for row in weights.list_weights() if not row.present]
    assert len(absent) > 10
    assert all(row.address for row in absent)


@pytest.mark.parametrize(
    "name",
    [
        *("vit_small_patch14_dinov2", "vit_base_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2"),
        *("deit_tiny_patch16_224", "convnext_tiny"),
    ],
)
def test_backbones_of_today_have_licence_and_address(name: str) -> None:
    (entry,) = weights_manifest.entries_for(name)
    assert entry.licence
    assert entry.url
    assert entry.url.startswith("https://huggingface.co/timm/")
    assert entry.expected is None, "no hash that nobody has seen"
