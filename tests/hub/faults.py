"""What can go wrong between a hub and its client.

A fault: {"kind", "path": glob over repo paths, "method", "port", "count", "probability", ...}.
before() answers in place of the server; shape() changes what the server is about to send.
"""
import email.utils
import fnmatch
import random
import time

from server import Gone

CHANCE = random.Random(1)


def span(asked):
    return 0 if asked is None or asked[1] is None else asked[1] - asked[0] + 1


def take(hub, request, path):
    """The first fault that fits, counted down; None when all is well."""
    with hub.lock:
        for fault in hub.faults:
            if fault["count"] > 0 and fnmatch.fnmatchcase(path, fault.get("path", "*")) \
                    and fault.get("method", request.method) == request.method \
                    and fault.get("port", request.port) == request.port \
                    and ("min_first" not in fault or
                         (request.range() or (0, 0))[0] >= fault["min_first"]) \
                    and ("over_bytes" not in fault or
                         span(request.range()) > fault["over_bytes"]) \
                    and CHANCE.random() < fault.get("probability", 1):
                fault["count"] -= 1
                fault["taken"] = fault.get("taken", 0) + 1
                return fault
    return None


def before(hub, request, entry, fault):
    """1 when the fault is the whole answer."""
    kind = fault["kind"]
    if kind == "silent":
        hub.hold()
        raise Gone
    if kind == "close":
        request.connection.reset()
    if kind == "status":
        soon = email.utils.formatdate(time.time() + 2, usegmt=True)
        hub.reply(request, fault["status"], fault.get("body", "no"),
                  [(k, v.replace("{soon}", soon)) for k, v in fault.get("headers", ())])
        return True
    if kind == "416":
        total = fault.get("total", entry.size)
        hub.reply(request, 416, "", [("Content-Range", f"bytes */{total}")])
        return True
    if kind == "redirect":
        to = fault["to"].format(target=request.target, hub=hub.hub.origin, cdn=hub.cdn.origin,
                                cdn2=hub.cdn2.origin)
        hub.reply(request, fault.get("status", 302), "", [("Location", to)] if to else [])
        return True
    return False


def shape(plan, fault, total):
    kind = fault["kind"]
    length = plan["last"] - plan["first"] + 1
    if kind == "drop":
        plan["cut"] = min(length, fault.get("after", length // 2))
        plan["orderly"] = fault.get("orderly", False)
    elif kind == "wrong":
        plan["flip"] = fault.get("at", plan["first"] + length // 2)
    elif kind == "trickle":
        plan["trickle"] = True
    elif kind == "short":
        plan["last"] -= length // 2
        plan["length"] = plan["last"] - plan["first"] + 1
        if plan["range"]:
            plan["range"] = f"bytes {plan['first']}-{plan['last']}/{total}"
    elif kind == "stub":            # no ranges, and never more than the first bytes
        last = total - 1 if fault["torn"] else fault["after"] - 1
        plan.update(status=200, first=0, last=last, length=last + 1, range=None, orderly=False,
                    cut=fault["after"] if fault["torn"] else None)
    elif kind == "surplus":
        plan.update(length=None, extra=64, close=True)
        plan["headers"].append(("Connection", "close"))
    elif kind == "late":            # all bytes at once, the end of the reply after so many seconds
        plan.update(length=None, close=True, late=fault["seconds"])
        plan["headers"].append(("Connection", "close"))
    elif kind == "norange":
        plan.update(status=200, first=0, last=total - 1, length=total, range=None)
    elif kind == "shift":
        plan["range"] = f"bytes {plan['first'] + 1}-{plan['last'] + 1}/{total}"
    elif kind == "other_total":
        plan["range"] = f"bytes {plan['first']}-{plan['last']}/{total + 1}"
    elif kind == "gzip":
        plan["headers"].append(("Content-Encoding", "gzip"))
    elif kind == "multipart":
        plan["headers"].append(("Content-Type", "multipart/byteranges; boundary=x"))
    elif kind == "200range":
        plan["status"] = 200
    elif kind == "etag":
        plan["headers"] = [("ETag", fault.get("etag", f'"other-{fault["taken"]}"'))]
    else:
        raise ValueError(f"no such fault: {kind}")
