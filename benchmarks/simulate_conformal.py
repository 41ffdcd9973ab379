"""How often a conformal threshold flags new good images, where its images also chose the epoch or the configuration.

    python -m benchmarks.simulate_conformal                  # 4,000 trainings a row, half a minute
    python -m benchmarks.simulate_conformal --repeats 20000

Each training has `epochs` models. A model's scores of one image are the image's own difficulty and noise of the epoch;
`correlation` is how alike two epochs score an image. The epoch of the lowest mean score of good validation images is
kept (as by val_good_loss), or that of the highest AUROC. The threshold asks for 5 %, and the rate is the exact share of
all good images above it, so that only trainings are drawn. With a half held back (`data.calibration_share: 0.5`) the
threshold is of images that chose nothing.
"""

import argparse
import math

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

RATE = 0.05
SETTINGS = [  # good images, epochs, correlation
    *((n, epochs, 0.5) for n in (40, 100, 200) for epochs in (1, 10, 50)),
    *((100, 50, correlation) for correlation in (0.0, 0.8, 0.95)),
]


def thresholds(scores: np.ndarray, rate: float = RATE) -> np.ndarray:
    """Return the conformal threshold of each row of good scores (r, n)."""
    count = scores.shape[1]
    rank = math.ceil(round((count + 1) * (1 - rate), 9))
    return np.sort(scores, axis=1)[:, min(rank, count) - 1]


def chosen_epoch(good: np.ndarray, bad: np.ndarray, by: str) -> np.ndarray:
    """Return the epoch (r,) that scores (r, epochs, n) choose: lowest mean of good ones, or highest AUROC."""
    if by == "loss":
        return good.mean(axis=2).argmin(axis=1)
    ranks = rankdata(np.concatenate([bad, good], axis=2), axis=2)[:, :, : bad.shape[2]]
    return ranks.sum(axis=2).argmax(axis=1)


def simulate(good: int, epochs: int, correlation: float, by: str, held_back: bool, repeats: int, seed: int) -> float:
    """Return the mean false-alarm rate over trainings."""
    random = np.random.default_rng(seed)
    rates = []
    for start in range(0, repeats, 500):
        count = min(500, repeats - start)

        def scores(images: int, shift: float, count: int = count) -> np.ndarray:
            common = random.normal(size=(count, 1, images))
            own = random.normal(size=(count, epochs, images))
            return shift + math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own

        of_good, of_bad = scores(good, 0.0), scores(good // 2, 1.5)
        choosing, calibrating = (of_good[:, :, good // 2 :], of_good[:, :, : good // 2]) if held_back else [of_good] * 2
        best = chosen_epoch(choosing, of_bad, by)
        limits = thresholds(calibrating[np.arange(count), best])
        rates.append(1 - ndtr(limits))  # each epoch's scores of new good images are standard normal
    return float(np.concatenate(rates).mean())


def main() -> None:
    """Print the rates as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| good images | epochs | correlation | lowest loss | highest AUROC | AUROC, half held back |")
    print("|--:|--:|--:|--:|--:|--:|")
    for good, epochs, correlation in SETTINGS:
        cells = [
            f"{simulate(good, epochs, correlation, by, held, arguments.repeats, arguments.seed):.1%}"
            for by, held in (("loss", False), ("AUROC", False), ("AUROC", True))
        ]
        print(f"| {good} | {epochs} | {correlation} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
