"""MQTT over WebSocket: Mosquitto, RabbitMQ's web_mqtt and aedes, with paho and MQTT.js."""

import sys

from kit import HERE, free_port, recipe

sys.path.insert(0, str(HERE / "stomp"))
from rabbitmq import rabbitmq  # noqa: E402

PAHO, MQTTJS = "paho-mqtt==2.2.0", "mqtt@5.16.0"

# `{large}` is what the client publishes to itself at once.
PAHO_SAYS = """
connected: Success
subscribed: 1
received: app/1 qos 1: hello
received: app/large qos 1: {large} bytes, intact
received: app/kept qos 0 retained: for later
disconnected: Normal disconnection
"""
MQTTJS_SAYS = """
version 4: connected
version 4: subscribed app/# qos 1
version 4: received app/1 qos 1: from node
version 4: ended
version 5: connected
version 5: subscribed app/# qos 1
version 5: received app/1 qos 1: from node
version 5: ended
"""


# RabbitMQ 3.10 and aedes do not speak version 5.
MQTTJS_4_SAYS = "\n".join(line for line in MQTTJS_SAYS.splitlines() if "version 4" in line)


def clients(kit, port, path, large, versions="4,5"):
    python = kit.pip(PAHO, clients=["paho-mqtt"])
    kit.npm(MQTTJS, clients=["mqtt"])
    kit.dialogue(port, "paho", python, kit.here / "paho_client.py", path, large, expect=PAHO_SAYS.format(large=large))
    says = MQTTJS_SAYS if "5" in versions else MQTTJS_4_SAYS
    kit.dialogue(port, "MQTT.js", "node", kit.here / "mqttjs.cjs", path, versions, expect=says)


@recipe("mosquitto")
def mosquitto(kit):
    system = kit.debian({"mosquitto": "2.0.11-1.2+deb12u2"})
    port = free_port()
    conf = kit.work / "mosquitto.conf"
    # A listener for plain MQTT as well: without one, 2.0.11 says that it has no sockets and ends.
    listeners = f"listener {free_port()} 127.0.0.1\nlistener {port} 127.0.0.1\nprotocol websockets\n"
    conf.write_text(listeners + "allow_anonymous true\nuser root\n")
    kit.start("mosquitto", *system, "mosquitto", "-c", conf, port=port)
    kit.gate(p9001=port)
    clients(kit, port, "/mqtt", 100_000)
    kit.answer(port, "/mqtt", "mqtt", (101, "mqtt"))
    kit.answer(port, "/mqtt", "mqttv3.1, mqtt", (101, "mqttv3.1"))
    # Answered like any other WebSocket, but nothing said there is ever answered.
    kit.answer(port, "/mqtt", None, (101, None))
    kit.answer(port, "/mqtt", "other", (502, None))


@recipe("rabbitmq")
def rabbitmq_web_mqtt(kit):
    port = rabbitmq(kit, "web_mqtt")
    kit.gate(p15675=port, p15676=port)
    clients(kit, port, "/ws", 300_000, versions="4")
    kit.answer(port, "/ws", "mqtt", (101, "mqtt"))
    kit.answer(port, "/ws", "mqtt, mqttv3.1", (101, "mqtt, mqttv3.1"), odd=True)
    # What `websocket_protocol mqtt` leaves of an offer gets an answer that everybody takes.
    kit.answer(port, "/mqtt", "mqtt, mqttv3.1", (101, "mqtt"), ways=["ws", "wss"])


@recipe("aedes")
def aedes(kit):
    kit.npm("aedes@1.2.0", "ws@8.23.0", MQTTJS, servers=["aedes", "ws"], clients=["mqtt"])
    port = free_port()
    kit.start("aedes", "node", kit.here / "aedes.cjs", port, port=port)
    kit.gate(p8888=port)
    kit.dialogue(port, "MQTT.js", "node", kit.here / "mqttjs.cjs", "/", "4", expect=MQTTJS_4_SAYS)
