"""Publish and subscribe: Nchan, a module of nginx."""

from kit import free_port, recipe

SAYS = """
subscribed: subprotocol ws+meta.nchan
published: 201, 1 subscriber
received: hello, content-type text/plain
published: 201, 1 subscriber
received: 100000 characters, content-type text/plain
sent by the subscriber and received: from a socket
deleted: 200
closed: 1001 410 Gone
"""

CONF = """
load_module modules/ngx_nchan_module.so;
daemon off;
master_process off;
pid {work}/nginx.pid;
error_log {work}/nginx.errors;
events {{}}
http {{
    access_log off;
    client_body_temp_path {work}/nginx.body;
    nchan_message_buffer_length 0;
    client_max_body_size 1m;
    server {{
        listen 127.0.0.1:{port};
        location /pub {{ nchan_publisher; nchan_channel_id $arg_id; }}
        location /sub {{ nchan_subscriber websocket; nchan_publisher websocket; nchan_channel_id $arg_id; }}
    }}
}}
"""


@recipe("nchan")
def nchan(kit):
    system = kit.debian({"libnginx-mod-nchan": "1:1.3.6+dfsg-2"}, "nginx")
    kit.npm("ws@8.23.0", clients=["ws"])
    port, conf = free_port(), kit.work / "nchan.conf"
    conf.write_text(CONF.format(work=kit.work, port=port))
    # Its modules are found from its prefix.
    kit.start("nchan", *system, "nginx", "-e", "stderr", "-c", conf, port=port)
    kit.gate(p8085=port)
    kit.dialogue(port, "ws", "node", kit.here / "client.cjs", "{way}", expect=SAYS)
    kit.answer(port, "/sub?id=a", "ws+meta.nchan", (101, "ws+meta.nchan"))
    kit.answer(port, "/sub?id=a", None, (101, None))
    kit.answer(port, "/sub?id=a", "other", (101, ""), odd=True)
