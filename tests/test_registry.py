"""Names to checkpoints, and downloads from a server that behaves as badly as servers do."""

import errno
import hashlib
import http.server
import io
import os
import re
import socket
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from sam_jax.checkpoints import registry
from sam_jax.checkpoints.registry import (
    OFFICIAL_WEIGHTS,
    OfficialWeights,
    checkpoint_path,
    download,
)
from sam_jax.errors import CheckpointError, InputError

# Several reads of the downloader, and no whole number of them.
CONTENT = np.random.default_rng(0).bytes(3_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Sends CONTENT; a test changes what it does and sees what it was asked for."""

    def __init__(self):
        self.content = CONTENT
        self.ranges = []  # the Range header of each request, or None
        self.cuts = []  # for the next requests: stop after so many bytes
        self.statuses = []  # for the next requests: answer with this error
        self.knows_ranges = True
        self.says_length = True
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/made_up.pth"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, request):
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if self.statuses:
            request.send_error(self.statuses.pop(0))
            return
        body = self.content
        if asked and self.knows_ranges:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if start >= len(body):
                request.send_response(416)
                request.send_header("Content-Range", f"bytes */{len(body)}")
                request.end_headers()
                return
            request.send_response(206)
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            body = body[start:]
        else:
            request.send_response(200)
        if self.says_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        cut = self.cuts.pop(0) if self.cuts else len(body)
        try:
            request.wfile.write(body[:cut])
        except ConnectionError:  # the client had seen enough
            pass


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_pause", lambda failures: None)
    official = OfficialWeights("http://127.0.0.1:9/made_up.pth", SHA256, len(CONTENT))
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "vit_b", official)
    return tmp_path / "cache"


class Converter:
    """Stands for `convert`: keeps what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, file: Path, destination: Path):
        self.given.append(file.read_bytes())
        destination.mkdir(exist_ok=True)
        (destination / "config.json").write_text("{}")


class Notes:
    def __init__(self):
        self.notes, self.updates = [], []

    def update(self, done, total):
        self.updates.append((done, total))

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def converter():
    return Converter()


def part_of(cache):
    return cache / "downloads" / "made_up.pth.part"


def leave_part(cache, content):
    part_of(cache).parent.mkdir(parents=True)
    part_of(cache).write_bytes(content)


def files_in(cache):
    return sorted(p.name for p in (cache / "downloads").iterdir() if p.suffix != ".lock")


def assert_installed(cache, converter, path, kept=()):
    assert converter.given == [CONTENT]
    assert path == cache / "checkpoints" / "vit_b" == checkpoint_path("vit_b")
    assert files_in(cache) == list(kept)


def assert_refused(caught, cache, converter, reason):
    assert re.search(reason, str(caught.value)) and "\n" not in str(caught.value)
    assert converter.given == []
    assert not (cache / "checkpoints" / "vit_b").exists()


def test_a_good_file_is_checked_converted_and_removed(cache, server, converter):
    progress = Notes()
    path = download("vit_b", converter, url=server.url, progress=progress)
    assert_installed(cache, converter, path)
    assert progress.updates[0] == (0, len(CONTENT))
    assert progress.updates[-1] == (len(CONTENT), len(CONTENT))
    assert progress.notes == []


def test_a_second_call_asks_nobody_unless_forced(cache, server, converter):
    download("vit_b", converter, url=server.url)
    download("vit_b", converter, url=server.url)
    assert len(server.ranges) == len(converter.given) == 1
    download("vit_b", converter, url=server.url, force=True)
    assert len(server.ranges) == len(converter.given) == 2


def test_a_kept_file_is_used_again_without_the_network(cache, server, converter):
    path = download("vit_b", converter, url=server.url, keep=True)
    assert_installed(cache, converter, path, kept=["made_up.pth"])
    (path / "config.json").unlink()
    download("vit_b", converter, url=server.url)
    assert len(server.ranges) == 1 and converter.given == [CONTENT] * 2


def test_a_kept_file_that_was_damaged_is_fetched_again(cache, server, converter):
    leave_part(cache, b"")
    part_of(cache).with_suffix("").write_bytes(CONTENT[:-1] + b"?")
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))


def test_connections_that_are_cut_are_resumed(cache, server, converter):
    server.cuts = [1_000_000, 0, 1, 1_200_000]
    progress = Notes()
    path = download("vit_b", converter, url=server.url, progress=progress)
    assert_installed(cache, converter, path)
    starts = [None, "bytes=1000000-", "bytes=1000000-", "bytes=1000001-", "bytes=2200001-"]
    assert server.ranges == starts
    assert len(progress.notes) == 4 and "trying again" in progress.notes[0]


def test_more_cuts_than_attempts_are_survived_while_bytes_arrive(cache, server, converter):
    server.cuts = [200_000] * 12
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))


def test_a_part_of_an_earlier_run_is_resumed(cache, server, converter):
    leave_part(cache, CONTENT[:1_234_567])
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert server.ranges == ["bytes=1234567-"]


def test_a_complete_part_needs_no_request(cache, server, converter):
    leave_part(cache, CONTENT)
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert server.ranges == []


def test_a_part_that_began_as_another_file_is_fetched_from_the_beginning(cache, server, converter):
    leave_part(cache, b"another file" * 1000)
    progress = Notes()
    path = download("vit_b", converter, url=server.url, progress=progress)
    assert_installed(cache, converter, path)
    assert server.ranges == ["bytes=12000-", None]
    assert progress.notes == ["the resumed file is damaged; fetching it from the beginning"]


def test_a_part_longer_than_the_file_is_fetched_from_the_beginning(cache, server, converter):
    leave_part(cache, CONTENT + b"more")
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert server.ranges == [None]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_server_with_nothing_behind_the_part_of_unknown_size(
    cache, server, converter, length, monkeypatch
):
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "vit_b", OfficialWeights(server.url, SHA256))
    leave_part(cache, (CONTENT + b"?" * 5)[:length])
    assert_installed(cache, converter, download("vit_b", converter))
    assert server.ranges == [f"bytes={length}-"] + [None] * (length > len(CONTENT))


def test_a_server_that_ignores_ranges_is_started_over(cache, server, converter):
    server.knows_ranges = False
    server.cuts = [2_000_000]
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert server.ranges == [None, "bytes=2000000-"]


def test_a_server_that_never_gets_farther_is_given_up(cache, server, converter):
    server.knows_ranges = False
    server.cuts = [500_000] * 100
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "connection was cut; check the connection")
    assert len(server.ranges) < 10


def test_a_file_of_unknown_size_and_length_is_judged_by_its_hash(
    cache, server, converter, monkeypatch
):
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "vit_b", OfficialWeights(server.url, SHA256))
    server.says_length = False
    assert_installed(cache, converter, download("vit_b", converter))


def test_a_wrong_hash_is_refused_and_the_file_removed(cache, server, converter):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "not the official file: its SHA-256")
    assert files_in(cache) == []


def test_a_wrong_size_is_refused_before_it_is_downloaded(cache, server, converter):
    server.content = CONTENT + b"?"
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "3500001 bytes, but the official one has 3500000")
    assert files_in(cache) == []


def test_an_endless_body_is_cut_off(cache, server, converter):
    server.content, server.says_length = CONTENT * 3, False
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "cannot be downloaded")
    part = part_of(cache)
    assert not part.exists() or part.stat().st_size < 2 * len(CONTENT)


def test_a_missing_file_is_reported_at_once(cache, server, converter):
    server.statuses = [404]
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "HTTP status 404 Not Found; name a mirror with --url")
    assert len(server.ranges) == 1


def test_a_busy_server_is_asked_again(cache, server, converter):
    server.statuses = [503, 429, 500]
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))


def test_a_server_that_stays_busy_is_given_up(cache, server, converter):
    server.statuses = [503] * 100
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "HTTP status 503")
    assert len(server.ranges) < 10


def test_an_unreachable_server(cache, converter):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening: refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/made_up.pth"
        with pytest.raises(CheckpointError) as caught:
            download("vit_b", converter, url=url)
    assert_refused(caught, cache, converter, "refused.*check the connection and run it again")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "made_up.pth", "http://", "http://[1/x"])
def test_addresses_that_are_none(cache, converter, url):
    with pytest.raises(CheckpointError) as caught:
        download("vit_b", converter, url=url)
    assert_refused(caught, cache, converter, "address|cannot be downloaded")


class FullDisk(io.BufferedWriter):
    """A file that has room for one chunk."""

    def write(self, chunk):
        if self.tell():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(chunk)


def test_a_full_disk_is_reported_and_what_is_there_resumed(cache, server, converter, monkeypatch):
    def open_on_full_disk(path, mode):
        return FullDisk(io.FileIO(path, mode)) if mode == "wb" else open(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(registry, "open", open_on_full_disk, raising=False)
        with pytest.raises(CheckpointError) as caught:
            download("vit_b", converter, url=server.url)
    assert_refused(caught, cache, converter, "No space left on device; make room there, or set SAM")
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert server.ranges == [None, f"bytes={1 << 20}-"]


def test_a_cache_folder_that_cannot_be_made(tmp_path, cache, converter, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SAM_JAX_CACHE", str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match="cannot write to the cache folder .*SAM_JAX_CACHE"):
        download("vit_b", converter, url="http://127.0.0.1:9/x")


def test_two_downloads_at_once_do_the_work_once(cache, server, converter):
    begun, go_on, paths = threading.Event(), threading.Event(), []

    def slow(file, destination):
        begun.set()
        go_on.wait(30)
        converter(file, destination)

    class Waiting(Notes):
        def note(self, text):
            super().note(text)
            go_on.set()

    def first():
        paths.append(download("vit_b", slow, url=server.url))

    waiting = Waiting()
    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)
    paths.append(download("vit_b", slow, url=server.url, progress=waiting))
    thread.join()
    assert_installed(cache, converter, paths[0])
    assert paths[0] == paths[1]
    assert waiting.notes == ["vit_b is being downloaded by another process; waiting for it"]
    assert len(server.ranges) == 1


def test_a_failed_conversion_keeps_the_download(cache, server, converter):
    def fails(file, destination):
        raise CheckpointError("no")

    with pytest.raises(CheckpointError, match="^no$"):
        download("vit_b", fails, url=server.url)
    assert_installed(cache, converter, download("vit_b", converter, url=server.url))
    assert len(server.ranges) == 1


def test_unknown_official_names_are_listed(cache, converter):
    with pytest.raises(CheckpointError, match="'vit_x'; names are: vit_b, vit_l, vit_h"):
        download("vit_x", converter)


def test_the_table_is_that_of_the_published_files():
    assert {n: (w.url.rsplit("/", 1)[1], w.num_bytes) for n, w in OFFICIAL_WEIGHTS.items()} == {
        "vit_b": ("sam_vit_b_01ec64.pth", 375_042_383),
        "vit_l": ("sam_vit_l_0b3195.pth", None),
        "vit_h": ("sam_vit_h_4b8939.pth", 2_564_550_879),
        "sam2.1_tiny": ("sam2.1_hiera_tiny.pt", 156_008_466),
        "sam2.1_small": ("sam2.1_hiera_small.pt", 184_416_285),
        "sam2.1_base_plus": ("sam2.1_hiera_base_plus.pt", 323_606_802),
        "sam2.1_large": ("sam2.1_hiera_large.pt", 898_083_611),
    }
    assert all(re.fullmatch("[0-9a-f]{64}", w.sha256) for w in OFFICIAL_WEIGHTS.values())


@pytest.mark.parametrize("spelling", ["vit_b", "sam_vit_b", "SAM-ViT-B", "vit-b"])
def test_an_official_name_that_is_not_there_says_what_to_run(cache, spelling):
    with pytest.raises(CheckpointError, match="run: sam-jax download vit_b$"):
        checkpoint_path(spelling)


def test_a_name_means_the_cache_and_not_the_current_folder(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Converter()(Path(__file__), tmp_path / "vit_b")
    with pytest.raises(CheckpointError, match="download"):
        checkpoint_path("vit_b")
    assert checkpoint_path("./vit_b") == checkpoint_path(Path("vit_b")) == Path("vit_b")


def test_shipped_names_come_from_the_package(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no built-in model 'tiny'; run: sam-jax download"):
        checkpoint_path("tiny")
    (tmp_path / "weights" / "tiny").mkdir(parents=True)
    (tmp_path / "weights" / "tiny" / "config.json").write_text("{}")
    sha256 = hashlib.sha256(b"{}").hexdigest()
    (tmp_path / "weights" / "SHA256SUMS").write_text(f"{sha256}  tiny/config.json\n")
    assert checkpoint_path("tiny") == tmp_path / "weights" / "tiny"
    with pytest.raises(CheckpointError, match="names are: tiny, vit_b, vit_l, vit_h"):
        checkpoint_path("vit_x")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "MODEL.PT"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_pytorch_file_says_how_to_convert_it(tmp_path, name, exists):
    path = tmp_path / name
    if exists:
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=f"sam-jax convert {re.escape(str(path))} DEST") as e:
        checkpoint_path(str(path))
    assert ("none at that path" in str(e.value)) == (not exists)


def test_the_cache_folder_is_the_users_unless_moved(monkeypatch):
    monkeypatch.delenv("SAM_JAX_CACHE", raising=False)
    assert "sam-jax" in registry.cache_folder().parts
    monkeypatch.setenv("SAM_JAX_CACHE", "~/elsewhere")
    assert registry.cache_folder() == Path.home() / "elsewhere"


def test_a_cache_folder_in_nobodys_home_is_refused(monkeypatch):
    monkeypatch.setenv("SAM_JAX_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(InputError, match="SAM_JAX_CACHE='~nobody-of-this-name/cache' is in nobody"):
        registry.cache_folder()


def test_what_is_not_there_says_where_downloaded_models_lie(cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = re.escape(str(cache / "checkpoints"))
    with pytest.raises(CheckpointError, match=rf"lie in {folder}\); run: sam-jax download vit_b$"):
        checkpoint_path("vit_b")
    for wrong in ("vit_x", "models/vit_x", Path("vit_x")):
        with pytest.raises(CheckpointError, match=rf"names are: tiny, vit_b.* lie in {folder}$"):
            checkpoint_path(wrong)


@pytest.mark.parametrize("name", ["tiny", "vit_b", "SAM-ViT-B"])
def test_a_name_comes_before_a_folder_or_file_of_that_name_and_says_so(
    cache, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    (cache / "checkpoints").mkdir(parents=True)
    Converter()(Path(__file__), cache / "checkpoints" / "vit_b")
    for make in (Path.mkdir, Path.touch):
        make(Path(name))
        with pytest.warns(UserWarning, match=rf"^'{name}' means the model .* \./{name} for that$"):
            assert checkpoint_path(name).name == name.lower().replace("-", "_").removeprefix("sam_")
        assert checkpoint_path(f"./{name}" if make == Path.mkdir else Path(name)) == Path(name)
        Path(name).rmdir() if make == Path.mkdir else Path(name).unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint_path(name)


def test_what_is_inside_the_package_is_not_downloaded(cache, converter):
    with pytest.raises(CheckpointError, match="'tiny' is inside the package"):
        download("tiny", converter)
    assert not cache.exists()


def test_a_command_in_a_message_can_be_pasted(tmp_path):
    path = tmp_path / "my weights; rm x.pth"
    with pytest.raises(CheckpointError) as error:
        checkpoint_path(path)
    assert f"sam-jax convert '{path}' DESTINATION" in str(error.value)
