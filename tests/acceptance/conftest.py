"""What the acceptance tests have measured is printed at the end."""


def pytest_terminal_summary(terminalreporter):
    """List the documented blocks that ran, with the time of each."""
    lines = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "documented" and report.when == "call"
    ]
    if lines:
        terminalreporter.section(f"{len(lines)} documented blocks")
        for line in lines:
            terminalreporter.write_line(line[:120])
