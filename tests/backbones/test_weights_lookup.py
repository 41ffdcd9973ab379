from defectlab.backbones.weights_lookup import named_entry


def test_any_timm_model_with_public_weights_has_an_entry() -> None:
    entry = named_entry("resnet34")
    assert entry is not None
    assert entry.file == f"{entry.name}.safetensors"
    assert entry.url == f"https://huggingface.co/timm/{entry.name}/resolve/main/model.safetensors"
    assert named_entry("resnet34.no_such_tag") is None
    assert named_entry("no_such_model") is None
