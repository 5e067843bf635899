"""How much of a remote tar shard is fetched for its index, and then for one image.

    python benchmarks/remote_ranges.py

Shards of 200 samples, an image, a txt and a json each, lie at `memory://`; the driver's fetches are counted. Nothing is
in the cache at first. Bytes and requests do not depend on the machine.
"""

import io
import json
import os
import tarfile
import tempfile
from typing import Any

import numpy as np

SAMPLES = 200


def shard(size: int) -> bytes:
    """A tar of samples whose images have `size` bytes each; what they hold is not looked at for the index."""
    rng, out = np.random.default_rng(0), io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for i in range(SAMPLES):
            caption = f"picture {i}".encode()
            for ending, raw in (("jpg", rng.bytes(size)), ("txt", caption), ("json", json.dumps({"key": i}).encode())):
                info = tarfile.TarInfo(f"{i:06d}.{ending}")
                info.size = len(raw)
                tar.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["MITHRIDATE_CACHE"] = cache
        from mithridate.data.images import read_bytes
        from mithridate.data.read import read_pairs
        from mithridate.remote import drivers
        from mithridate.remote.paths import forget

        driver: Any = drivers.filesystem("memory")
        fetched: list[int] = []
        fetch = type(driver).cat_file

        def counted(self: Any, path: str, start: Any = None, end: Any = None, **options: Any) -> bytes:
            raw = fetch(self, path, start=start, end=end, **options)
            fetched.append(len(raw))
            return raw

        type(driver).cat_file = counted
        print("| an image has | fetched for the index | requests | then for one image |\n|---|---|---|---|")
        for size in (20, 100, 320, 1000):
            raw = shard(size * 1024)
            driver.pipe_file(f"memory://s{size}/0.tar", raw)
            forget()
            fetched.clear()
            pairs = read_pairs(f"memory://s{size}/0.tar")
            share, requests = sum(fetched) / len(raw), len(fetched)
            fetched.clear()
            read_bytes(pairs.images[SAMPLES // 2].as_py())
            print(f"| {size} KiB | {share:.0%} | {requests} | {sum(fetched) / 1024:.0f} KiB |", flush=True)


if __name__ == "__main__":
    main()
