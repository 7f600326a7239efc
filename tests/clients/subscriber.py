"""A subscriber with httpx-sse: python subscriber.py URL END

Writes what it hears, one JSON array [event, id, data] a line, until it has heard of the resource END. httpx-sse
does not reconnect: this does, with the last id and after the time that the server asked for.
"""

import json
import sys
import time

import httpx
from httpx_sse import connect_sse

url, end = sys.argv[1:]
last_id, retry = "", 1000
with httpx.Client(trust_env=False, timeout=httpx.Timeout(10, read=60)) as client:
    while True:
        headers = {"Last-Event-ID": last_id} if last_id else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                for event in source.iter_sse():
                    last_id = event.id
                    retry = event.retry or retry
                    print(json.dumps([event.event, event.id, event.data]), flush=True)
                    if json.loads(event.data).get("id") == end:
                        sys.exit(0)
        except httpx.TransportError as error:
            print(f"{type(error).__name__}, again in {retry} ms", file=sys.stderr)
        time.sleep(retry / 1000)
