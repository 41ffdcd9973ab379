"""Masks that the configurations of a sweep share are read as those of a single run."""

from types import SimpleNamespace

import numpy as np
from PIL import Image

from defectlab.backbones.feature_cache.store import FeatureStore
from defectlab.data.folder import Folder
from defectlab.data.transforms.preprocessing import Preprocessing
from defectlab.sweeps.shared_work import SharedWork
from tests.helpers.datasets import make_parts


def test_shared_masks_mark_what_the_datasets_masks_mark(tmp_path):
    root = make_parts(tmp_path, train=4, good=2, bad=4, size=64)
    for path in (root / "ground_truth/blot").iterdir():
        soft = np.asarray(Image.open(path)).copy()
        rows, columns = np.nonzero(soft)
        soft[rows.max() + 1, columns] = 100  # a faint edge below the defect of 14 x 14
        Image.fromarray(soft).save(path)
    data = Folder(root=root, num_workers=0)
    one = SimpleNamespace(datamodule=data, model=SimpleNamespace(preprocessing=Preprocessing(size=(64, 64))))
    entries = data.manifest.split("test")
    masks = SharedWork([], FeatureStore(tmp_path / "features")).masks(one, entries)
    data.setup()
    own = [data.test_data[place].gt_mask.sum().item() for place in range(len(entries))]
    assert [mask.sum().item() for mask in masks] == own
    assert sorted(set(own)) == [0, 14 * 14]
