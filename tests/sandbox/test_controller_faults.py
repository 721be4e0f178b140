"""What the controller does wrong on demand, what it counts, and its bodies of any size."""

from __future__ import annotations

import asyncio
import hashlib
import time

import aiohttp
import jwt
import pytest

from gateway.sandbox.controller import Controller
from gateway.sandbox.faults import Break, Fault
from gateway.sandbox.tokens import hmac_checker
from gateway.sandbox.world import World

SECRET = b"a symmetric key for the faulty world, long enough"
LIST = "/v3/processes?per_page=20"


def admin(**changes):
    claims = {"aud": ["cloud_controller"], "exp": int(time.time()) + 600, "jti": "one", "user_id": "someone"}
    claims |= {"scope": ["cloud_controller.admin"]} | changes
    return {"Authorization": "bearer " + jwt.encode(claims, SECRET, "HS256")}


@pytest.fixture
async def sandbox():
    controller = Controller(world=World.seeded(50), verify=hmac_checker(SECRET), control=True)
    base = await controller.start()
    async with aiohttp.ClientSession(base, timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield controller, session
    await controller.stop()


async def get(session, target=LIST):
    async with session.get(target, headers=admin()) as response:
        return response.status, await response.read()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(broken=Break.CLOSE_BEFORE_HEAD), aiohttp.ServerDisconnectedError),
        (Fault(broken=Break.CLOSE_MID_BODY, after=100), aiohttp.ClientPayloadError),
        (Fault(broken=Break.RESET_MID_BODY, after=100), (aiohttp.ClientPayloadError, aiohttp.ClientOSError)),
        (Fault(broken=Break.WRONG_LENGTH, length_error=10), aiohttp.ClientPayloadError),
    ],
    ids=lambda value: str(value.broken) if isinstance(value, Fault) else "",
)
async def test_a_broken_answer_never_reads_as_a_whole_one(sandbox, fault, error):
    controller, session = sandbox
    controller.faults.add(fault)
    with pytest.raises(error):
        await get(session)
    controller.faults.clear()
    assert (await get(session))[0] == 200


async def test_a_cut_answer_holds_the_bytes_asked_for():
    controller = Controller(world=World.seeded(50), verify=hmac_checker(SECRET))
    host, port = (await controller.start()).removeprefix("http://").split(":")
    controller.faults.add(Fault(broken=Break.CLOSE_MID_BODY, after=5000))
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {LIST} HTTP/1.1\r\nHost: h\r\nAuthorization: {admin()['Authorization']}\r\n\r\n".encode())
    raw = await reader.read()
    writer.close()
    await writer.wait_closed()
    await controller.stop()
    assert raw.partition(b"\r\n\r\n")[2].startswith(b"1388\r\n")  # 5000 bytes in one chunk, and no last chunk
    assert len(raw.partition(b"1388\r\n")[2].removesuffix(b"\r\n")) == 5000


async def test_a_too_short_length_leaves_bytes_where_the_next_answer_belongs(sandbox):
    controller, session = sandbox
    controller.faults.add(Fault(broken=Break.WRONG_LENGTH, length_error=-7, times=1))
    reader, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
    writer.write(b"GET /v2/info HTTP/1.1\r\nHost: h\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    assert b"connection: close" not in head.lower()
    assert not (await reader.readexactly(length)).endswith(b"}")
    assert (await reader.readexactly(7)).endswith(b"}")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("broken", [Break.STALL_BEFORE_HEAD, Break.STALL_MID_BODY])
async def test_a_stalled_answer_goes_on_when_the_faults_are_cleared(sandbox, broken):
    controller, session = sandbox
    whole = (await get(session))[1]
    controller.faults.add(Fault(broken=broken, after=50))
    waiting = asyncio.create_task(get(session))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.05)
    controller.faults.clear()
    assert await waiting == (200, whole)


async def test_latency_and_status_for_the_requests_that_match(sandbox):
    controller, session = sandbox
    controller.faults.add(Fault(matching="GET /v3/processes", status=503, times=1))
    controller.faults.add(Fault(matching="/v3/apps", latency=0.05))
    assert (await get(session, "/v3/info"))[0] == 200
    assert (await get(session))[0] == 503
    assert (await get(session))[0] == 200
    began = time.perf_counter()
    assert (await get(session, "/v3/apps"))[0] == 200
    assert time.perf_counter() - began >= 0.05


async def test_faults_can_be_commanded_over_http_where_that_is_allowed(sandbox):
    _, session = sandbox
    async with session.post("/__sandbox__/faults", json={"status": 500, "matching": "/v3/processes"}) as response:
        assert response.status == 200
    assert (await get(session))[0] == 500
    async with session.delete("/__sandbox__/faults") as response:
        assert response.status == 200
    assert (await get(session))[0] == 200
    async with session.get("/__sandbox__/requests") as response:
        assert await response.json() == [["GET", LIST, "someone"]] * 2
    async with session.post("/__sandbox__/faults", json={"nonsense": 1}) as response:
        assert response.status == 400


async def test_commands_are_unknown_where_they_are_not_allowed():
    controller = Controller(world=World.seeded(1), verify=hmac_checker(SECRET))
    base = await controller.start()
    async with aiohttp.ClientSession(base) as session, session.delete("/__sandbox__/faults") as response:
        assert response.status == 404
    await controller.stop()


async def test_requests_are_kept_with_their_principal_and_headers(sandbox):
    controller, session = sandbox
    await get(session)
    async with session.get("/v3/info?x=1", headers={"X-Test": "yes"}):
        pass
    first, second = controller.requests
    assert (first.method, first.target, first.principal) == ("GET", LIST, "someone")
    assert (second.target, second.principal) == ("/v3/info?x=1", None)
    assert ("X-Test", "yes") in second.headers


async def test_an_upload_of_any_size_is_streamed_and_digested(sandbox):
    _, session = sandbox
    block, count = b"bits" * 4096, 640

    async def body():
        for _ in range(count):
            yield block

    path = "/v3/packages/00000000-0000-4000-8000-000000000001/upload"
    async with session.post(path, data=body(), headers=admin()) as response:
        assert response.status == 200
        data = (await response.json())["data"]
    digest = hashlib.sha256(block * count).hexdigest()
    assert data == {"error": None, "checksum": {"type": "sha256", "value": digest}, "size": len(block) * count}


async def test_a_blob_has_the_bytes_asked_for_and_says_so(sandbox):
    _, session = sandbox
    async with session.get("/v3/sandbox/blob?bytes=3000001") as response:
        assert response.headers["Content-Length"] == "3000001"
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert len(await response.read()) == 3_000_001


async def test_a_download_redirects_to_a_signed_url_elsewhere(sandbox):
    _, session = sandbox
    path = "/v3/packages/00000000-0000-4000-8000-000000000001/download"
    async with session.get(path, headers=admin(), allow_redirects=False) as response:
        assert response.status == 302
        assert response.headers["Location"].startswith("https://blobstore.internal.example.org/read/")
        assert "md5=" in response.headers["Location"]


async def test_http_1_0_gets_no_length_and_a_closed_connection(sandbox):
    _, session = sandbox
    reader, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
    writer.write(b"GET /v3/info HTTP/1.0\r\nHost: h\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    assert b"content-length" not in head.lower()
    assert b"transfer-encoding" not in head.lower()
    assert body.endswith(b"}")


async def test_concurrent_pages_are_answered_whole(sandbox):
    _, session = sandbox
    answers = await asyncio.gather(*(get(session) for _ in range(40)))
    assert len(set(answers)) == 1
