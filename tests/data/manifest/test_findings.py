"""All problems in one error, each group capped."""

import pytest

from defectlab.data.manifest.findings import MAX_LINES, Findings
from defectlab_runtime.errors import DataError


def test_everything_is_said_at_once_and_capped():
    findings = Findings()
    findings.problem("Nothing", [])
    findings.raise_problems("x")
    findings.problem("Torn", [f"{i}.png" for i in range(MAX_LINES + 5)])
    findings.problem("Lost", ["m.png"])
    findings.warn("Odd", ["w.png"])
    with pytest.raises(DataError) as caught:
        findings.raise_problems("data/bottle")
    text = str(caught.value)
    assert "data/bottle" in text
    assert f"Torn ({MAX_LINES + 5}):" in text
    assert f"{MAX_LINES - 1}.png" in text
    assert f"{MAX_LINES}.png" not in text
    assert "... and 5 more" in text
    assert "m.png" in text
    assert "w.png" not in text
    assert findings.warnings == ["Odd (1):\n  w.png"]
