"""Publishes to itself: paho_client.py PATH BYTES URL"""

import os
import queue
import ssl
import sys
import urllib.parse

import paho.mqtt.client as mqtt

path, large, url = sys.argv[1], int(sys.argv[2]), urllib.parse.urlsplit(sys.argv[3])
events = queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, transport="websockets")
client.ws_set_options(path=path)
if url.scheme == "wss":
    client.tls_set_context(ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))
client.on_connect = lambda _c, _u, _f, reason, _p: events.put(f"connected: {reason}")
client.on_subscribe = lambda _c, _u, _m, reasons, _p: events.put(f"subscribed: {reasons[0].value}")
client.on_disconnect = lambda _c, _u, _f, reason, _p: events.put(f"disconnected: {reason}")
client.on_message = lambda _c, _u, message: events.put(message)


def told():
    return events.get(timeout=60)


def received():
    message = told()
    body = message.payload.decode() if len(message.payload) < 100 else f"{len(message.payload)} bytes"
    if message.payload == blob:
        body += ", intact"
    print(f"received: {message.topic} qos {message.qos}{' retained' * message.retain}: {body}")


blob = os.urandom(large)
client.connect(url.hostname, url.port)
client.loop_start()
print(told())
client.subscribe("app/#", qos=1)
print(told())
client.publish("app/1", "hello", qos=1)
received()
client.publish("app/large", blob, qos=1)
received()
# What a subscriber that comes later gets first.
client.unsubscribe("app/#")
client.publish("app/kept", "for later", qos=1, retain=True).wait_for_publish(60)
client.subscribe("app/kept", qos=0)
told()
received()
client.publish("app/kept", b"", qos=1, retain=True).wait_for_publish(60)
client.unsubscribe("app/kept")
while not events.empty():
    events.get()
client.disconnect()
said = told()
print(said if isinstance(said, str) else told())
client.loop_stop()
