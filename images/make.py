"""Make the README's pictures and its table of best models from the project's own runs: `make images`.

Nothing here trains: `make demo` and the notebooks of training_code/ make the runs.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import openpyxl
from openpyxl.utils import get_column_letter
from PIL import Image, ImageChops

from defectlab.results.run.run import Run, find_runs
from defectlab.results.workbook import best_table, read_workbook, update_workbook
from defectlab.results.workbook.generated_sheets import ABOUT, LEADERBOARD, PER_DEFECT
from defectlab.utils import paths
from defectlab.utils.files import replace_between

IMAGES = Path(__file__).parent
README = IMAGES.parent / "README.md"
DATASET = "coins"
SHOWN_COLUMNS = 10  # of the sheet `runs`: who, and the four metrics
BOARD_COLUMNS = 10  # of the sheet `leaderboard`: to the p-value
SHOWN_ROWS = {"comparison": 21, "runs": 12, "leaderboard": 40}  # of each sheet: its beginning says what it is


def main() -> int:
    """Write images/ and the README's table."""
    runs = [run for run in find_runs() if run.status == "finished" and run.record.dataset.name == DATASET]
    if not runs:
        print(f"There is no finished run on {DATASET} yet: run `make demo` first.", file=sys.stderr)
        return 1
    update_workbook()
    best = max(runs, key=lambda run: run.record.metrics["pixel_AUROC"])  # the picture shows places
    print(f"result.jpg: {save_small(best, IMAGES / 'result.jpg')}")
    if shutil.which("soffice") and shutil.which("pdftoppm"):
        workbook_picture(paths.workbook(), IMAGES / "workbook.png")
        print("workbook.png: as LibreOffice shows it")
    else:
        print("workbook.png: left as it is; drawing it needs LibreOffice (soffice) and Poppler (pdftoppm)")
    begin, end = "<!-- best models: made by `make images` -->", "<!-- end of best models -->"
    replace_between(README, begin, end, best_table(read_workbook()))
    return 0


def save_small(run: Run, target: Path) -> str:
    """Save a run's panel of test images as JPEG, a fifth of the bytes."""
    with Image.open(run.folder / "pictures.png") as picture:
        picture.convert("RGB").save(target, quality=88, optimize=True)
    return paths.relative(run.folder)


def workbook_picture(workbook: Path, target: Path) -> None:
    """Draw comparison, runs and leaderboard as LibreOffice shows them, one below the other, cut to their beginnings."""
    with tempfile.TemporaryDirectory() as folder:
        book = openpyxl.load_workbook(workbook)
        sheet = book["runs"]
        sheet.print_area = f"A1:{get_column_letter(SHOWN_COLUMNS)}{min(sheet.max_row, SHOWN_ROWS['runs'])}"
        sheet.page_setup.fitToWidth = 1
        for name in (PER_DEFECT, ABOUT):
            book.remove(book[name])
        board = book[LEADERBOARD]
        board.print_area = f"A1:{get_column_letter(BOARD_COLUMNS)}{min(board.max_row, SHOWN_ROWS['leaderboard'])}"
        board.page_setup.fitToWidth = 1
        blocks = book["comparison"]
        blocks.print_area = f"A1:C{min(blocks.max_row, SHOWN_ROWS['comparison'])}"
        for one in book.worksheets:
            one.print_options.gridLines = one.print_options.headings = True
        copy = Path(folder) / "workbook.xlsx"
        book.save(copy)
        profile = f"-env:UserInstallation=file://{folder}/profile"
        command = ["soffice", profile, "--headless", "--convert-to", "pdf", "--outdir", folder, str(copy)]
        subprocess.run(command, check=True, capture_output=True)
        subprocess.run(["pdftoppm", "-r", "130", "-png", str(copy.with_suffix(".pdf")), f"{folder}/page"], check=True)
        pages = [trimmed(Image.open(page).convert("RGB")) for page in sorted(Path(folder).glob("page*.png"))]
        picture = Image.new("RGB", (max(p.width for p in pages), sum(p.height + 16 for p in pages) - 16), "white")
        top = 0
        for page in pages:
            picture.paste(page, (0, top))
            top += page.height + 16
        picture.quantize(64).save(target, optimize=True)


def trimmed(page: Image.Image, margin: int = 6) -> Image.Image:
    """Cut the white paper around what is printed."""
    box = ImageChops.difference(page, Image.new("RGB", page.size, "white")).getbbox()
    if box is None:
        return page
    left, top, right, bottom = box
    return page.crop((max(left - margin, 0), max(top - margin, 0), right + margin, bottom + margin))


if __name__ == "__main__":
    sys.exit(main())
