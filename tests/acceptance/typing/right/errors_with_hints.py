import sys

import edgellm

try:
    with edgellm.load(sys.argv[1], memory=sys.argv[2]) as llm:
        print(llm.generate(sys.argv[3]).text)
except edgellm.MemoryBudgetError as error:
    print("too large:", error.hint)
except (edgellm.ModelNotFoundError, edgellm.DownloadError) as error:
    print("no such model:", error.message)
except edgellm.EdgeLLMError as error:
    print(error, error.hint or "", file=sys.stderr)
    sys.exit(error.exit_code)
