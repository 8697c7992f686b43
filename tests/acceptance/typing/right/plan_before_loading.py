import edgellm


def best_budget(model: str, budgets: list[str]) -> str | None:
    for budget in budgets:
        try:
            plan = edgellm.plan(model, memory=budget, context=2048)
        except edgellm.MemoryBudgetError:
            continue
        if plan.resident:
            return budget
        if plan.seconds_per_token is not None and plan.seconds_per_token < 0.2:
            return budget
    return None


print(best_budget("stories", ["100MB", "1GB", "4GB"]))
