from pathlib import Path

from helpers.runs import finished

from defectlab.results.run.adoption import adopt_run


def test_an_adopted_run_is_where_it_would_be_had_it_run_here(tmp_path: Path):
    there = finished("one", root=tmp_path / "there")
    files = {
        path.relative_to(there.folder).as_posix(): path.read_bytes()
        for path in there.folder.rglob("*")
        if path.is_file()
    }
    results = tmp_path / "here"
    first = adopt_run(files, results)
    assert first.folder == results / "Padim/coins/one"
    assert adopt_run(files, results).folder == first.folder
    finished("one", root=results, seed=7, dataset="digits")
    other = finished("one", root=tmp_path / "more", seed=7)
    files = {"run.json": (other.folder / "run.json").read_bytes()}
    second = adopt_run(files, results)
    assert second.folder.name == "one_seed-7" == second.record.name
    assert not list((results / "Padim/coins").glob(".one*"))
