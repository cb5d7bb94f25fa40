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


# ---- a tokenizer ----

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def letters():
    """The characters that stand for the bytes 0 to 255 in byte-level vocabularies."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(rest)}


def tokenizer(path, size=512):
    """A tokenizer.json without merges: a token a byte, the words of prompts, and words to fill it.
    Bytes that are not ASCII come last."""
    words = [BOS, EOS, "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "｜DSML｜"]
    first = size - 256
    words += [f"[word {i}]" for i in range(len(words), first)]
    vocab = {letter: first + byte for byte, letter in letters().items()}
    added = [{"id": i, "content": w, "special": w in (BOS, EOS), "normalized": False,
              "single_word": False, "lstrip": False, "rstrip": False}
             for i, w in enumerate(words)]
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []}}))
    return path
