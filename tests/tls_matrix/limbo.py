#!/usr/bin/env python3
"""Compares our judgement of x509-limbo's chains with OpenSSL's.

    cargo run -p wssgate-x509 --example limbo LIMBO.json > ours.tsv
    tests/tls_matrix/limbo.py LIMBO.json ours.tsv

LIMBO.json is the file of https://github.com/C2SP/x509-limbo (`python -m limbo compile -o limbo.json`), which
is no part of this repository. OpenSSL is asked as nginx asks it: security level 2, no partial chains. What
differs is written, first where we trust and OpenSSL does not. Cases that ask for more than a chain for a
host (other purposes, client names, addresses) are left out.
"""

import datetime
import json
import pathlib
import subprocess
import sys
import tempfile


def openssl(case, work):
    """Whether OpenSSL trusts, and its words."""
    paths = {}
    for name in ("trusted_certs", "untrusted_intermediates", "crls"):
        paths[name] = work / name
        paths[name].write_text("\n".join(case[name]))
    leaf = work / "leaf"
    leaf.write_text(case["peer_certificate"])
    purpose = "sslserver" if case["validation_kind"] == "SERVER" else "sslclient"
    command = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-auth_level", "2", "-purpose", purpose]
    command += ["-CAfile", paths["trusted_certs"]]
    if case["untrusted_intermediates"]:
        command += ["-untrusted", paths["untrusted_intermediates"]]
    if case["crls"]:
        command += ["-CRLfile", paths["crls"], "-crl_check_all"]
    if case["validation_time"]:
        time = datetime.datetime.fromisoformat(case["validation_time"].replace("Z", "+00:00"))
        command += ["-attime", str(int(time.timestamp()))]
    depth = case["max_chain_depth"]
    command += ["-verify_depth", str(6 if depth is None else depth)]
    name = case["expected_peer_name"]
    if name:
        command += ["-verify_hostname", name["value"]]
    done = subprocess.run([*command, leaf], capture_output=True, text=True, errors="replace")
    words = (done.stderr.strip() or done.stdout.strip()).splitlines()
    found = [line for line in words if "lookup:" in line] or words
    return done.returncode == 0, found[0] if found else ""


def is_asked(case):
    """Whether it is a chain for a host, as upstream servers and clients show one."""
    name = case["expected_peer_name"]
    usual = ["serverAuth"] if case["validation_kind"] == "SERVER" else ["clientAuth"]
    return (
        (not name or name["kind"] == "DNS")
        and not case["expected_peer_names"]
        and not case["key_usage"]
        and not case["signature_algorithms"]
        and case["extended_key_usage"] in ([], usual)
    )


def main():
    limbo, ours = sys.argv[1:]
    rows = [line.split("\t") for line in pathlib.Path(ours).read_text().splitlines()]
    said = {row[0]: (row[1] == "SUCCESS", row[2]) for row in rows}
    cases = [case for case in json.loads(pathlib.Path(limbo).read_text())["testcases"] if is_asked(case)]
    lax, strict, unlike = [], [], 0
    with tempfile.TemporaryDirectory() as work:
        for case in cases:
            (we, why), (they, words) = said[case["id"]], openssl(case, pathlib.Path(work))
            line = f"{case['id']}: expected {case['expected_result']}, we: {why or 'trusted'}, OpenSSL: {words}"
            if we and not they:
                lax.append(line)
            elif they and not we:
                strict.append(line)
            unlike += we != (case["expected_result"] == "SUCCESS")
    print(f"{len(cases)} cases, {unlike} judged unlike limbo expects of a strict verifier")
    print(f"we trust, OpenSSL does not: {len(lax)}", *lax, sep="\n  ")
    print(f"OpenSSL trusts, we do not: {len(strict)}", *strict, sep="\n  ")
    sys.exit(1 if lax else 0)


if __name__ == "__main__":
    main()
