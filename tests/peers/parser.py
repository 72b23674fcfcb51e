"""Answers each connection with what its PROXY header says, read by the package proxy-protocol.

usage: parser.py PORT
"""

import asyncio
import sys

from proxyprotocol.checksum import crc32c
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.reader import ProxyProtocolReader


async def serve(reader, writer):
    # Raises an error if the checksum is wrong.
    assert crc32c is not None
    result = await ProxyProtocolReader(ProxyProtocolDetect()).read(reader)
    tlv, tls = result.tlv, result.tlv.ssl
    shown = "shown" if tls.has_cert_conn else "of session" if tls.has_cert_sess else "none"
    if isinstance(result.source, str):
        source, destination = result.source, result.dest
    else:
        source, destination = "%s:%d" % result.source, "%s:%d" % result.dest
    lines = [
        f"source {source}",
        f"destination {destination}",
        f"alpn {(tlv.alpn or b'').decode()}",
        f"authority {tlv.authority}",
        f"unique id {tlv.unique_id.decode()}",
        f"checksum {'right' if tlv.crc32c is not None else 'missing'}",
        f"tls version {tls.version}",
        f"tls cipher {tls.cipher}",
        f"tls name {tls.cn}",
        f"tls certificate {shown}{' and verified' if tls.verified else ''}",
    ]
    writer.write("".join(line + "\n" for line in lines).encode())
    await writer.drain()
    writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
