"""Conversations by number: all roles, tools, any characters, empty contents, nested arguments.

Only random() is drawn from: its values are the same in every version of Python."""
import json
import random

WORDS = ["", " ", "a", "Why?", "Größe", "日本語のテキスト", "👩‍👩‍👧", "\n", "\n\n", "\t\"quoted\"\\",
         "<think>", "</think>", "<｜User｜>", "｜DSML｜", "{braces} {0} %s", "x" * 70, "\u2028", "\x7f",
         "e\u0301", "null", "[1, 2]", "</tool_result>", "line\r\nbreak", "\x01\x1f"]
NUMBERS = [0, -1, 7, 2 ** 53 + 1, -2 ** 70, 1.0, -0.0, 0.1, 1e5, 1e15, 1e16, 123456789012345680.0,
           1.5e-7, 1e-4, 9.99e-5, 5e-324, 1.7976931348623157e308, 2.5, -3.25e20, 100.0]
TASKS = ["action", "query", "authority", "domain", "title", "read_url"]
MODES = {"chat": ("chat", None), "think": ("thinking", None), "think-max": ("thinking", "max")}


class Draw:
    def __init__(self, number):
        self.random = random.Random(number).random

    def below(self, count):
        return int(self.random() * count)

    def of(self, items):
        return items[self.below(len(items))]

    def chance(self, part):
        return self.random() < part

    def text(self):
        return "".join(self.of(WORDS) for _ in range(self.below(4)))

    def value(self, depth=0):
        kind = self.below(7 if depth < 3 else 5)
        if kind == 5:
            return [self.value(depth + 1) for _ in range(self.below(4))]
        if kind == 6:
            return self.members(depth + 1)
        return [self.text(), self.of(NUMBERS), True, None, False][kind]

    def members(self, depth=0):
        return {self.text() + str(i): self.value(depth) for i in range(self.below(4))}

    def tools(self):
        return [{"type": "function",
                 "function": {"name": f"tool_{i}", "description": self.text(),
                              "parameters": self.members()}} for i in range(self.below(3))]

    def arguments(self):
        if self.chance(0.15):
            return self.of(["", "not JSON", "{\"a\": ", "{'a': 1}", "line\nfeed"]) + self.text()
        return json.dumps(self.members(), ensure_ascii=self.chance(0.5),
                          indent=self.of([None, 2]))

    def calls(self):
        call = lambda i: {"type": "function",
                          "function": {"name": self.of(["get", "größe", "a.b"]),
                                       "arguments": self.arguments()}}
        calls = [call(i) for i in range(self.below(4))]
        for i, one in enumerate(calls):
            if self.chance(0.8):
                (one if self.chance(0.8) else one["function"])["id"] = f"call_{i}"
        return calls


def optional(draw, message, part, **members):
    for key, make in members.items():
        if draw.chance(part):
            message[key] = make()
    return message


def instructions(draw, role):
    content = draw.text() + ("." if role == "developer" else "")
    message = {"role": role, "content": None if role == "system" and draw.chance(0.1) else content}
    schema = lambda: draw.of([{}, None, {"type": "json", "s": draw.value()}])
    return optional(draw, message, 0.3, tools=draw.tools, response_format=schema)


def answer(draw):
    message = {"role": "assistant", "content": None if draw.chance(0.2) else draw.text()}
    optional(draw, message, 0.5, reasoning_content=draw.text)
    optional(draw, message, 0.4, tool_calls=draw.calls)
    return optional(draw, message, 0.1, wo_eos=lambda: draw.chance(0.5),
                    task=lambda: draw.of(TASKS))


def result(draw):
    parts = lambda: [{"type": "text", "text": draw.text()}, {"type": "text"},
                     {"type": "image_url", "image_url": {"url": "x"}}][:draw.below(4)]
    message = {"role": "tool", "content": parts() if draw.chance(0.3) else draw.text()}
    return optional(draw, message, 0.8, tool_call_id=lambda: f"call_{draw.below(5)}")


def question(draw):
    message = {"role": "user", "content": draw.text()}
    if draw.chance(0.05):
        del message["content"]
    return optional(draw, message, 0.1, task=lambda: draw.of(TASKS + [None]))


def conversation(number):
    draw = Draw(number)
    messages = []
    if draw.chance(0.6):
        messages.append(instructions(draw, "system"))
    for _ in range(1 + draw.below(5)):
        messages += [question(draw) for _ in range(draw.of([0, 1, 1, 2]))]
        if draw.chance(0.15):
            messages.append(instructions(draw, "developer"))
        if draw.chance(0.15):
            messages.append({"role": "latest_reminder", "content": draw.text()})
        messages += [answer(draw) for _ in range(draw.of([0, 1, 1, 1, 2]))]
        messages += [result(draw) for _ in range(draw.of([0, 0, 1, 3]))]
    if draw.chance(0.9):
        messages.append(question(draw))
    return messages
