"""STOMP over WebSocket: RabbitMQ's web_stomp with stompjs."""

import sys

from kit import HERE, recipe

sys.path.insert(0, str(HERE / "stomp"))
from rabbitmq import rabbitmq  # noqa: E402

SAYS = """
connected: version 1.2, server RabbitMQ/3.10.8, heart-beat 10000,10000
receipt: subscribed
message: hello, x-kind greeting
message: 200000 bytes, intact
error: Unknown destination
closed: 1000 STOMP died
"""


@recipe("rabbitmq")
def rabbitmq_web_stomp(kit):
    kit.npm("@stomp/stompjs@7.5.0", "ws@8.23.0", clients=["@stomp/stompjs"])
    port = rabbitmq(kit, "web_stomp")
    kit.gate(p15674=port)
    kit.dialogue(port, "stompjs", "node", kit.here / "stompjs.cjs", "/ws", expect=SAYS)
    kit.answer(port, "/ws", "v12.stomp, v11.stomp, v10.stomp", (101, "v12.stomp"))
    kit.answer(port, "/ws", None, (101, None))
    kit.answer(port, "/ws", "other", (101, None))
