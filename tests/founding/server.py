"""One running proxy, nginx or wssgate: both are told the same in the same way."""

import pathlib
import subprocess
import time

PATIENCE = 20  # seconds for a start or a stop

# What a distribution has around the files of its users. `conf.d` holds the founding files.
MAIN = """\
user www-data;
worker_processes 1;
worker_rlimit_nofile 4096;
daemon on;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;

events {{
    worker_connections 1024;
}}

http {{
    log_format founding '$remote_addr - $remote_user [$time_local] "$request" $status '
                        '$body_bytes_sent "$http_referer" "$http_user_agent" '
                        '"$http_x_forwarded_for" $host $server_port $scheme $http_upgrade '
                        '"$upstream_status" "$upstream_addr" $request_time';
    access_log {prefix}/access.log founding;
    client_body_temp_path {prefix}/temp_body;
    proxy_temp_path {prefix}/temp_proxy;
    fastcgi_temp_path {prefix}/temp_fastcgi;
    uwsgi_temp_path {prefix}/temp_uwsgi;
    scgi_temp_path {prefix}/temp_scgi;
    include conf.d/*.conf;
}}
"""


class Server:
    """A daemon in a prefix of its own, running one founding file as it is."""

    def __init__(self, binary, prefix, founding_file):
        self.binary, self.prefix = binary, pathlib.Path(prefix)
        conf_d = self.prefix / "conf" / "conf.d"
        conf_d.mkdir(parents=True)
        (self.prefix / "conf" / "nginx.conf").write_text(MAIN.format(prefix=prefix))
        (conf_d / "site.conf").write_bytes(pathlib.Path(founding_file).read_bytes())

    def run(self, *arguments):
        """Runs the program with its configuration; a daemon keeps stderr, so that is a file."""
        command = [self.binary, "-p", f"{self.prefix}/", "-c", "conf/nginx.conf"]
        command += ["-e", f"{self.prefix}/error.log", *arguments]
        stderr = self.prefix / "stderr.log"
        with stderr.open("ab") as output:
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=PATIENCE
            ).returncode
        if status != 0:
            raise SystemExit(f"{' '.join(command)}: status {status}\n{stderr.read_text()}")

    def start(self):
        self.run("-t")
        self.run()

    def stop(self):
        """Asks for the end by `-s quit` and waits for it: then the logs are complete."""
        self.run("-s", "quit")
        deadline = time.monotonic() + PATIENCE
        while (self.prefix / "nginx.pid").exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.binary} does not end after `-s quit`")
            time.sleep(0.02)

    def log(self, name):
        return (self.prefix / name).read_text(errors="backslashreplace")
