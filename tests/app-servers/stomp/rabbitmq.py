"""RabbitMQ with one of its WebSocket plugins, for the recipes of STOMP and MQTT."""

from kit import free_port


def rabbitmq(kit, plugin):
    """Starts RabbitMQ with `rabbitmq_PLUGIN` and returns the port of its WebSocket listener."""
    system = kit.debian({"rabbitmq-server": "3.10.8-1.1+deb12u1"})
    home = kit.work / "rabbitmq"
    home.mkdir()
    port, plain, amqp, distribution, epmd = (free_port() for _ in range(5))
    conf = home / "rabbitmq.conf"
    conf.write_text(
        f"listeners.tcp.local = 127.0.0.1:{amqp}\n"
        f"{plugin.removeprefix('web_')}.listeners.tcp.local = 127.0.0.1:{plain}\n"
        f"{plugin}.tcp.ip = 127.0.0.1\n{plugin}.tcp.port = {port}\n"
    )
    (home / "plugins").write_text(f"[rabbitmq_{plugin}].\n")
    environment = {
        **kit.environment,
        "HOME": home, "RABBITMQ_MNESIA_BASE": home / "data", "RABBITMQ_LOG_BASE": home, "RABBITMQ_CONFIG_FILE": conf,
        "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins", "RABBITMQ_NODENAME": f"app{port}@localhost",
        "RABBITMQ_DIST_PORT": distribution, "ERL_EPMD_PORT": epmd, "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_PID_FILE": home / "pid",
    }  # fmt: skip
    server = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    environment = {name: str(value) for name, value in environment.items()}
    kit.start("rabbitmq", *system, server, port=port, env=environment)
    return port
