"""Language-model jobs over any OpenAI-compatible endpoint: translation, polish, and reports written from labels."""

from umif.language.llm.cache import Answer, AnswerCache
from umif.language.llm.cost import Estimate, Price, estimate_lines
from umif.language.llm.endpoint import Endpoint, endpoint, key_from
from umif.language.llm.english import language_of, not_english
from umif.language.llm.items import Generated, Item, read_generated, read_items, table_bytes, write_whole
from umif.language.llm.job import LanguageJob, Limits, Outcome, Rejected
from umif.language.llm.judge import UnfitError, judge
from umif.language.llm.permission import check_permission, restricted
from umif.language.llm.prompts import Prompt, Prompts, load_prompts, own_prompts
from umif.language.llm.reading import Mention, read_mentions, read_states
from umif.language.llm.work import Sampling, Unit, make_units

__all__ = [
    "Answer",
    "AnswerCache",
    "Endpoint",
    "Estimate",
    "Generated",
    "Item",
    "LanguageJob",
    "Limits",
    "Mention",
    "Outcome",
    "Price",
    "Prompt",
    "Prompts",
    "Rejected",
    "Sampling",
    "UnfitError",
    "Unit",
    "check_permission",
    "endpoint",
    "estimate_lines",
    "judge",
    "key_from",
    "language_of",
    "load_prompts",
    "make_units",
    "not_english",
    "own_prompts",
    "read_generated",
    "read_items",
    "read_mentions",
    "read_states",
    "restricted",
    "table_bytes",
    "write_whole",
]
