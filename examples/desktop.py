"""A chat window over a local model: ``python examples/desktop.py``; without a display, a console.

The window's thread never waits. A worker loads the model, reads its answers, and tells what happens
in a queue, at which the window looks 30 times a second.
"""

import argparse
import os
import queue
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from importlib.util import find_spec

import edgellm


class Worker(threading.Thread):
    """Loads a model and answers; ``ask``, ``stop`` and ``quit`` return at once.

    ``events`` has pairs: ("loading", share), ("ready", ""), ("text", piece), ("done", reason) and
    ("failed", message).
    """

    def __init__(self, model: str, **settings) -> None:
        super().__init__()
        self.events: queue.SimpleQueue = queue.SimpleQueue()
        self._model, self._settings = model, settings
        self._questions: queue.SimpleQueue = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._quitting = threading.Event()
        self._stream: edgellm.Stream | None = None

    def run(self) -> None:
        try:
            with edgellm.load(self._model, progress=self._loading, **self._settings) as llm:
                chat = llm.chat()
                self.events.put(("ready", ""))
                while (question := self._questions.get()) is not None:
                    self._answer(chat, question)
        except edgellm.EdgeLLMError as error:
            self.events.put(("failed", f"{error.message}; {error.hint}"))

    def ask(self, question: str) -> None:
        self._stopped.clear()
        self._questions.put(question)

    def stop(self) -> None:
        self._stopped.set()
        if self._stream is not None:
            self._stream.cancel()

    def quit(self) -> None:
        self._quitting.set()
        self.stop()
        self._questions.put(None)

    def _loading(self, done: int, total: int) -> None:
        if self._quitting.is_set():
            raise edgellm.ClosedError("the window was closed")  # ends loading
        self.events.put(("loading", done / total))

    def _answer(self, chat: edgellm.Chat, question: str) -> None:
        try:
            with chat.stream(question) as self._stream:
                if self._stopped.is_set():
                    self._stream.cancel()
                for token in self._stream:
                    self.events.put(("text", token.text))
            self.events.put(("done", self._stream.completion.finish_reason))
        except edgellm.EdgeLLMError as error:  # such as ContextError: the conversation is too long
            self.events.put(("failed", f"{error.message}; {error.hint}"))


def window(worker: Worker) -> None:
    """Show the conversation until the window is closed."""
    import tkinter
    from tkinter import scrolledtext, ttk

    root = tkinter.Tk()
    root.title("edgellm")
    bar = ttk.Progressbar(root, maximum=1.0)
    text = scrolledtext.ScrolledText(root, wrap="word")
    entry = ttk.Entry(root)
    button = ttk.Button(root, text="Stop", command=worker.stop)
    for widget in (bar, entry, button):
        widget.pack(fill="x")
    text.pack(fill="both", expand=True)

    def ask(_: object) -> None:
        text.insert("end", f"\n> {entry.get()}\n")
        worker.ask(entry.get())
        entry.delete(0, "end")

    def look() -> None:
        with suppress(queue.Empty):
            while True:
                kind, value = worker.events.get_nowait()
                if kind == "loading":
                    bar["value"] = value
                elif kind == "ready":
                    bar.pack_forget()
                    entry.bind("<Return>", ask)
                elif kind != "done":
                    text.insert("end", value)
                    text.see("end")
        root.after(33, look)

    look()
    root.mainloop()


def console(worker: Worker, lines: Iterable[str]) -> None:
    """Answer each line; Ctrl-C stops an answer."""
    follow(worker, "ready")
    for line in lines:
        worker.ask(line)
        follow(worker, "done")


def follow(worker: Worker, last: str) -> None:
    """Print what is told up to a last event, or a failure."""
    kind = ""
    while kind not in (last, "failed"):
        try:
            kind, value = worker.events.get()
        except KeyboardInterrupt:
            worker.stop()
            continue
        if kind in ("text", "failed"):
            print(value, end="", flush=True)
    print()


def has_display() -> bool:
    """Return whether a window can be shown here."""
    if find_spec("tkinter") is None:
        return False
    return sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="stories")
    parser.add_argument("--console", action="store_true")
    options = parser.parse_args()
    worker = Worker(options.model)
    worker.start()
    try:
        if options.console or not has_display():
            console(worker, sys.stdin)
        else:
            window(worker)
    finally:
        worker.quit()
        worker.join()


if __name__ == "__main__":
    main()
