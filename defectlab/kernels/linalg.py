"""Linear algebra on many matrices: chunks of independent work on all cores, Gram matrices, batched Cholesky."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from threadpoolctl import ThreadpoolController


def over_chunks(work: Callable[[slice], None], count: int, chunk: int, device: torch.device) -> None:
    """Call `work` on slices of at most `chunk` that cover `range(count)`.

    torch's batched Cholesky and triangular solve visit one matrix after the other. On the CPU the slices are therefore
    shared by as many threads as torch uses, each with OpenMP on one thread. `work` must write to places of its own
    slice only, so the result does not depend on the threads. Gradients are off. Under a trace `work` is called once.
    """
    if torch.jit.is_tracing() or torch.compiler.is_compiling():
        work(slice(0, count))
        return
    chunk = max(1, chunk)
    slices = [slice(begin, min(begin + chunk, count)) for begin in range(0, count, chunk)]
    threads = min(torch.get_num_threads(), len(slices))
    if device.type != "cpu" or threads < 2:
        with torch.no_grad():
            for part in slices:
                work(part)
        return
    inference = torch.is_inference_mode_enabled()

    def one(part: slice) -> None:
        # Both modes belong to a thread; a pool's threads start without them.
        with torch.inference_mode(inference), torch.no_grad():
            work(part)

    with ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        list(pool.map(one, slices))  # raises what a slice raised


def _one_thread() -> None:
    """Limit OpenMP to one thread in the calling thread, and in no other.

    `torch.set_num_threads` is not used: it changes MKL for the whole process, after which `torch.linalg.inv` of large
    batches fails (torch 2.15: "Parameter 6 was incorrect on entry to SLASWP").
    """
    _openmp().limit(limits=1)


@cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


BLOCK = 34  # columns a step; measured best of 16 to 50 at 100 columns, LAPACK's own call on each matrix took 1.6x


def measured_product_rate(rows: int, inner: int, columns: int, device: torch.device) -> float:
    """Measure floating-point operations per second of a (rows, inner) @ (inner, columns) product, the best of three."""
    left, right = torch.ones(rows, inner, device=device), torch.ones(inner, columns, device=device)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        float((left @ right)[0, 0])  # reading a number waits for a GPU to finish
        best = min(best, time.perf_counter() - begin)
    return 2.0 * rows * inner * columns / best


def gram(rows: torch.Tensor) -> torch.Tensor:
    """Return Gram matrices rows.T @ rows (p, C, C) of rows (p, N, C); the upper right quarter is mirrored."""
    half = rows.shape[2] // 2
    if half < 16:
        return torch.bmm(rows.mT, rows)
    product = rows.new_empty(len(rows), rows.shape[2], rows.shape[2])
    torch.bmm(rows[:, :, :half].mT, rows[:, :, :half], out=product[:, :half, :half])
    product[:, half:] = torch.bmm(rows[:, :, half:].mT, rows)
    product[:, :half, half:] = product[:, half:, :half].mT
    return product


def batched_cholesky(matrices: torch.Tensor, block: int = BLOCK) -> tuple[torch.Tensor, torch.Tensor]:
    """Return lower Cholesky factors (p, C, C) of symmetric matrices, and a (p,) bool mask of the failed ones.

    A matrix fails where it is not positive definite; its factor is then meaningless. The algorithm is blocked, so that
    most of the work is batched products.
    """
    size = matrices.shape[-1]
    if size <= block or matrices.device.type != "cpu":
        factor, info = torch.linalg.cholesky_ex(matrices)
        return factor, info != 0
    factor = torch.zeros_like(matrices)
    failed = torch.zeros(len(matrices), dtype=torch.bool, device=matrices.device)
    for begin in range(0, size, block):
        end = min(begin + block, size)
        panel = matrices[:, begin:, begin:end]
        if begin:
            done = factor[:, begin:, :begin]
            panel = torch.baddbmm(panel, done, done[:, : end - begin].mT, alpha=-1)
        corner, info = torch.linalg.cholesky_ex(panel[:, : end - begin])
        failed |= info != 0
        factor[:, begin:end, begin:end] = corner
        if end < size:
            below = panel[:, end - begin :]
            factor[:, end:, begin:end] = torch.linalg.solve_triangular(corner.mT, below, upper=True, left=False)
    return factor, failed
