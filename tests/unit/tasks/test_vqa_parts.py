"""The decoder, the ranking and the scores of visual question answering, each against an independent reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from question_corpus import SIDE, tiny_encoder
from umif.encoder import Encoder
from umif.errors import ConfigError, TaskError
from umif.tasks.base import TaskOptions
from umif.tasks.metrics import patient_weights
from umif.tasks.vqa_config import VqaConfig
from umif.tasks.vqa_data import Questions, majority_answers, shuffled_rows
from umif.tasks.vqa_decoder import AnswerDecoder, DecoderShape, load_bert
from umif.tasks.vqa_features import KeptTokens, memory_of, some_rows
from umif.tasks.vqa_model import MAX_ANSWER_TOKENS, AnswerTokens, Standardised, VqaModel, build_vqa_model
from umif.tasks.vqa_ranking import rank_candidates
from umif.tasks.vqa_scores import Judged, accuracies, accuracy_replicates, compare_answers
from umif.tasks.vqa_training import true_likelihoods
from umif.tokens import TextTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor


def brute_force(model: VqaModel, view: NDArray[np.uint8], question: str, answer: tuple[int, ...]) -> float:
    """Log-likelihood token by token: a memory of one, one prefix at a time, nothing padded."""
    nothing = np.zeros(1, dtype=np.int64)
    memory = model.remember(view[None], [question], nothing, nothing)
    prefix, total = [model.tokens.start], 0.0
    for token in answer:
        logits_V = model.decoder(torch.tensor([[prefix]]), memory)[0, 0, -1]
        total += float(F.log_softmax(logits_V.double(), dim=0)[token])
        prefix.append(token)
    return total


@pytest.fixture(scope="module")
def model() -> VqaModel:
    model = build_vqa_model(tiny_encoder(), VqaConfig(), seed=1).eval()
    # Answers of a fresh decoder are all about equally likely; larger weights tell them apart.
    with torch.no_grad():
        model.decoder.words.weight.mul_(20)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def views() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (3, SIDE, SIDE)).astype(np.uint8)


class TestModel:
    ANSWERS = ("yes", "no", "left upper zone", "left lower zone", "right", "zone upper zone left right seen", "edema")
    QUESTIONS = ("where is it", "is the opacity in the upper zone")

    def test_padded_batches_give_the_likelihoods_that_one_at_a_time_gives(
        self, model: VqaModel, views: NDArray[np.uint8]
    ) -> None:
        answers = [model.tokens.encode(text) for text in self.ANSWERS]
        image_of, text_of = np.array([2, 0, 1, 0]), np.array([0, 1, 1, 0])
        memory = model.remember(views, list(self.QUESTIONS), image_of, text_of)
        block_NKT = AnswerTokens.pad(answers).expand(4, -1, -1)
        found_NK = model.log_likelihoods(memory, block_NKT)
        for n in range(4):
            for k, answer in enumerate(answers):
                expected = brute_force(model, views[image_of[n]], self.QUESTIONS[text_of[n]], answer)
                # fp32 sums over another batch shape.
                assert float(found_NK[n, k]) == pytest.approx(expected, abs=2e-4)

    def test_likelihoods_of_all_next_tokens_add_up_to_one(self, model: VqaModel, views: NDArray[np.uint8]) -> None:
        zero = np.zeros(1, dtype=np.int64)
        memory = model.remember(views[:1], ["where is it"], zero, zero)
        assert float(model.first_log_probs(memory).exp().sum()) == pytest.approx(1.0, abs=1e-5)

    def test_pictures_and_questions_both_change_what_is_likely(self, model: VqaModel, views: NDArray[np.uint8]) -> None:
        memory = model.remember(views[:2], list(self.QUESTIONS), np.array([0, 1, 0]), np.array([0, 0, 1]))
        first_NV = model.first_log_probs(memory)
        assert not torch.allclose(first_NV[0], first_NV[1], atol=1e-3)
        assert not torch.allclose(first_NV[0], first_NV[2], atol=1e-3)

    def test_a_free_answer_takes_the_likeliest_token_each_time(self, model: VqaModel, views: NDArray[np.uint8]) -> None:
        memory = model.remember(views, list(self.QUESTIONS), np.array([0, 1, 2]), np.array([0, 1, 0]))
        for n, answer in enumerate(model.generate(memory)):
            assert model.tokens.end not in answer[:-1]
            assert answer[-1] == model.tokens.end or len(answer) == MAX_ANSWER_TOKENS
            prefix = [model.tokens.start]
            for token in answer:
                logits_V = model.decoder(torch.tensor([[prefix]]), memory.take(torch.tensor([n])))[0, 0, -1]
                assert int(logits_V.argmax()) == token
                prefix.append(token)

    def test_the_encoder_stays_as_it_is_when_its_copy_is_trained(self) -> None:
        encoder = tiny_encoder()
        before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
        copy = encoder.trainable_copy()
        assert all(parameter.requires_grad for parameter in copy.parameters())
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(1.0)
        assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
        assert not any(tensor.requires_grad for tensor in encoder.state_dict().values())

    def test_a_frozen_network_gets_no_gradient_and_a_free_one_does(self, views: NDArray[np.uint8]) -> None:
        for frozen in (True, False):
            model = build_vqa_model(tiny_encoder(), VqaConfig(frozen=frozen), seed=1)
            zero = np.zeros(1, dtype=np.int64)
            memory = model.remember(views[:1], ["where is it"], zero, zero)
            answers = AnswerTokens.pad([model.tokens.encode("left upper zone")])[None]
            model.log_likelihoods(memory, answers).sum().backward()
            reached = [parameter.grad is not None for parameter in model.network.vit.parameters()]
            assert any(reached) != frozen
            assert all(parameter.grad is not None for parameter in model.decoder.parameters())

    def test_answers_of_any_lengths_together_get_what_each_gets_alone(
        self, model: VqaModel, views: NDArray[np.uint8]
    ) -> None:
        answers = [model.tokens.encode(text) for text in self.ANSWERS]
        image_of, text_of = np.arange(len(answers)) % 3, np.arange(len(answers)) % 2
        memory = model.remember(views, list(self.QUESTIONS), image_of, text_of)
        for n, value in enumerate(true_likelihoods(model, memory, answers)):
            expected = brute_force(model, views[image_of[n]], self.QUESTIONS[text_of[n]], answers[n])
            assert float(value) == pytest.approx(expected, abs=2e-4)  # fp32 sums over another batch shape

    def test_an_encoder_without_a_tokeniser_is_refused(self) -> None:
        encoder = tiny_encoder()
        mute = Encoder(encoder.trainable_copy(), device="cpu")
        with pytest.raises(TaskError, match="no tokeniser"):
            build_vqa_model(mute, VqaConfig(), seed=0)


class TestStandardised:
    def test_features_of_cls_and_of_the_rest_get_mean_zero_and_deviation_one_each(self) -> None:
        torch.manual_seed(0)
        tokens = torch.randn(50, 4, 6) * torch.tensor([1, 5, 0.1, 2, 3, 1]) + 7
        tokens[:, 0] = 3 * tokens[:, 0] - 40
        standard = Standardised(6)
        assert torch.equal(standard(tokens), tokens)
        standard.measure(tokens)
        for part in (standard(tokens)[:, 0], standard(tokens)[:, 1:].flatten(0, 1)):
            torch.testing.assert_close(part.mean(0), torch.zeros(6), atol=1e-4, rtol=0)  # fp32 sums
            torch.testing.assert_close(part.std(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)

    def test_padding_does_not_count_and_a_feature_that_never_changes_stays_small(self) -> None:
        torch.manual_seed(0)
        tokens, real = torch.randn(30, 5, 4), torch.ones(30, 5, dtype=torch.bool)
        tokens[..., 3] = 2.0
        real[:, 3:] = False
        spoiled = tokens.clone()
        spoiled[:, 3:] = 1e6
        ones = [Standardised(4), Standardised(4)]
        ones[0].measure(tokens[:, :3])
        ones[1].measure(spoiled, real)
        torch.testing.assert_close(ones[0].scale_2D, ones[1].scale_2D)
        assert torch.equal(ones[1](tokens)[..., 3], torch.zeros(30, 5))


class TestKeptTokens:
    def test_memory_from_kept_tokens_is_that_of_pictures_and_questions_themselves(
        self, model: VqaModel, views: NDArray[np.uint8]
    ) -> None:
        class Three:
            def take(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
                return views[rows - 5]

        pictures: Any = Three()
        words = np.array(TestModel.QUESTIONS)
        kept = KeptTokens(model, pictures, np.array([7, 5, 6, 5]), words)
        rows, asked = np.array([6, 7, 6]), words[[1, 1, 0]]
        found, expected = kept.memory(rows, asked), memory_of(model, pictures, rows, asked)
        assert torch.equal(found.real_NS, expected.real_NS)
        for one, other in ((found.start_ND, expected.start_ND), *zip(found.keys, expected.keys, strict=True)):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)  # other batches through the network

    def test_as_many_pictures_are_kept_as_are_wanted_and_fit(self) -> None:
        rows = np.repeat(np.arange(100), 2)
        assert some_rows(rows, 200, 1, seed=0).tolist() == list(range(100))
        few = some_rows(rows, 10, 1, seed=0)
        assert len(set(few.tolist())) == 10
        assert not np.array_equal(few, some_rows(rows, 10, 1, seed=1))
        assert len(some_rows(rows, 200, 2**28, seed=0)) == 4


class TestTokens:
    def test_start_and_end_lie_beyond_a_vocabulary_that_has_none(self) -> None:
        tokenizer = TextTokenizer.train(["left upper zone"], vocab_size=60)
        tokens = AnswerTokens(tokenizer)
        assert (tokens.start, tokens.end) == (tokenizer.vocab_size, tokenizer.vocab_size + 1)
        assert tokens.vocabulary == tokenizer.vocab_size + 2
        assert tokens.encode("left zone")[-1] == tokens.end
        assert tokens.decode(tokens.encode("left upper zone")) == "left upper zone"

    def test_a_berts_own_start_and_end_are_used(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "left"]), encoding="utf-8")
        tokens = AnswerTokens(TextTokenizer.load(tmp_path))
        assert (tokens.start, tokens.end, tokens.vocabulary) == (2, 3, 5)
        assert tokens.encode("left") == (4, 3)

    def test_a_long_answer_is_cut_and_still_ends(self) -> None:
        tokens = AnswerTokens(TextTokenizer.train(["left"], vocab_size=60))
        ids = tokens.encode("left " * 50)
        assert len(ids) == MAX_ANSWER_TOKENS
        assert ids[-1] == tokens.end


class TestBert:
    def test_a_berts_weights_give_a_berts_logits(self) -> None:
        from transformers import BertConfig, BertLMHeadModel

        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
            max_position_embeddings=20, is_decoder=True, add_cross_attention=True,
        )  # fmt: skip
        bert = BertLMHeadModel(config).eval()
        with torch.no_grad():
            for parameter in bert.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        decoder = AnswerDecoder(DecoderShape(24, 2, 3, 48, 40, 20, 24))
        load_bert(decoder, bert.state_dict())
        ids_NT = torch.randint(0, 40, (3, 7))
        rows_NSD = torch.randn(3, 5, 24)
        real_NS = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 0, 0, 0]], dtype=torch.bool)
        with torch.no_grad():
            expected = bert(
                input_ids=ids_NT, encoder_hidden_states=rows_NSD, encoder_attention_mask=real_NS.long()
            ).logits
            # Two rows of a picture, which are always real, then three of a question.
            own = torch.arange(3)
            memory = decoder.remember(rows_NSD[:, :2], rows_NSD[:, 2:], real_NS[:, 2:], own, own)
            found = decoder(ids_NT[:, None], memory)[:, 0]
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)  # fp32, other order of sums

    def test_a_folder_without_a_bert_and_another_vocabulary_are_refused(self, tmp_path: Path) -> None:
        (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nleft", encoding="utf-8")
        with pytest.raises(ConfigError, match="different vocabularies"):
            build_vqa_model(tiny_encoder(), VqaConfig(decoder=str(tmp_path)), seed=0)
        tiny_encoder().tokenizer.save(tmp_path / "own")  # type: ignore[union-attr]
        with pytest.raises(ConfigError, match="no BERT"):
            build_vqa_model(tiny_encoder(), VqaConfig(decoder=str(tmp_path / "own")), seed=0)

    def test_a_bert_of_the_same_vocabulary_starts_the_decoder(self, tmp_path: Path) -> None:
        from transformers import BertConfig, BertForMaskedLM

        encoder = tiny_encoder()
        assert encoder.tokenizer is not None
        encoder.tokenizer.save(tmp_path)
        size = encoder.tokenizer.vocab_size
        config = BertConfig(
            vocab_size=size + 2, hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48
        )
        bert = BertForMaskedLM(config)
        bert.save_pretrained(tmp_path)
        model = build_vqa_model(encoder, VqaConfig(decoder=str(tmp_path)), seed=0)
        assert torch.equal(model.decoder.words.weight, bert.state_dict()["bert.embeddings.word_embeddings.weight"])


class TestRanking:
    @staticmethod
    def draw(seed: int, count: int = 20, candidates: int = 50) -> tuple[Tensor, Tensor]:
        """First-token log-probabilities, and likelihoods of whole answers, which are never higher."""
        rng = np.random.default_rng(seed)
        first = torch.from_numpy(np.log(rng.dirichlet(np.full(candidates, 0.3), count)))
        return first, first - torch.from_numpy(rng.exponential(1.0, (count, candidates)))

    @pytest.mark.parametrize("seed", range(5))
    def test_a_list_no_longer_than_what_is_kept_is_ranked_exactly(self, seed: int) -> None:
        first, whole = self.draw(seed)
        ranked = rank_candidates(first, lambda n, k: whole[n].gather(1, k), keep=50)
        assert torch.equal(ranked.choice_N, whole.argmax(1))
        assert torch.equal(ranked.log_likelihood_N, whole.max(1).values)
        assert bool(ranked.exact_N.all())

    @pytest.mark.parametrize("keep", [1, 3, 7, 20])
    def test_two_stages_give_the_best_of_those_kept_and_know_when_that_is_the_best_of_all(self, keep: int) -> None:
        first, whole = self.draw(9)
        ranked = rank_candidates(first, lambda n, k: whole[n].gather(1, k), keep=keep)
        kept = first.argsort(1, descending=True)[:, :keep]
        expected = kept.gather(1, whole.gather(1, kept).argmax(1, keepdim=True))[:, 0]
        assert torch.equal(ranked.choice_N, expected)
        right = ranked.choice_N == whole.argmax(1)
        assert bool(right[ranked.exact_N].all())
        assert int(ranked.exact_N.sum()) > 0

    def test_what_is_ruled_out_is_not_scored(self) -> None:
        first, whole = self.draw(1, candidates=200)
        scored = 0

        def score(n: Tensor, k: Tensor) -> Tensor:
            nonlocal scored
            scored += k.numel()
            return whole[n].gather(1, k)

        rank_candidates(first, score, keep=200)
        assert scored < 0.5 * whole.numel()


def hand_worked() -> Questions:
    """Six test questions of three patients, four training ones of one."""

    def texts(values: list[str]) -> NDArray[np.str_]:
        return np.array(values, dtype=np.str_)

    return Questions(
        dataset="hand",
        rows_N=np.array([0, 0, 0, 0, 1, 1, 2, 3, 3, 4]),
        images_N=texts(["i0", "i0", "i0", "i0", "i1", "i1", "i2", "i3", "i3", "i4"]),
        patients_N=texts(["p0", "p0", "p0", "p0", "p1", "p1", "p1", "p2", "p2", "p3"]),
        splits_N=texts(["train"] * 4 + ["test"] * 6),
        questions_N=texts([f"q{n}" for n in range(10)]),
        answers_N=texts(["no", "no", "yes", "left", "no", "left", "yes", "no", "right", "left"]),
        closed_N=np.array([1, 1, 1, 0, 1, 0, 1, 1, 0, 0], dtype=bool),
        types_N=texts(["PRES", "PRES", "SIZE", "POS", "PRES", "POS", "SIZE", "new", "new", "POS"]),
    )


class TestScores:
    def test_accuracy_by_kind_is_the_share_of_right_answers(self) -> None:
        questions = hand_worked()
        right = np.array([1, 0, 1, 0, 1, 1], dtype=bool)
        # Test questions: closed, open, closed, closed, open, open.
        assert accuracies(right, questions.closed_N[questions.of("test")]) == {
            "overall": pytest.approx(4 / 6),
            "open": pytest.approx(2 / 3),
            "closed": pytest.approx(2 / 3),
        }
        assert accuracies(right, np.ones(6, dtype=bool))["open"] is None

    def test_the_majority_is_of_the_type_else_of_open_or_closed(self) -> None:
        questions = hand_worked()
        guessed = majority_answers(questions, questions.of("train"), questions.of("test"))
        assert guessed.tolist() == ["no", "left", "yes", "no", "left", "left"]

    def test_a_replicate_weighs_questions_by_their_patients_draws(self) -> None:
        right = np.array([1, 0, 1, 1], dtype=bool)
        patients = ["a", "a", "b", "c"]
        [weights_RN] = patient_weights(patients, 50, 7)
        [found] = accuracy_replicates([right], patients, 50, 7)
        for weights, value in zip(weights_RN, found, strict=True):
            repeated = np.repeat(right, weights.astype(int))
            assert value == pytest.approx(repeated.mean())

    def test_rows_hold_gains_over_every_baseline_on_the_same_patients(self) -> None:
        questions = hand_worked()
        ours = Judged("umif", False, np.array([1, 1, 1, 0, 1, 1], dtype=bool), {"steps": 3}, {"open": {"free": 0.5}})
        theirs = Judged("random", True, np.array([1, 0, 1, 0, 0, 1], dtype=bool))
        rows = compare_answers(questions, "p", 100.0, [ours, theirs], TaskOptions(bootstrap=200, seed=1))
        assert [(row.metric, row.encoder) for row in rows] == [
            (metric, name) for metric in ("accuracy", "open accuracy", "closed accuracy") for name in ("umif", "random")
        ]
        first = rows[0]
        assert first.value == pytest.approx(5 / 6)
        assert (first.n_patients, rows[4].n_patients) == (3, 2)
        [gain] = first.extra["gains"]
        assert (gain["over"], gain["value"]) == ("random", pytest.approx(2 / 6))
        a, b = accuracy_replicates([ours.right_N, theirs.right_N], questions.patients_N[4:].tolist(), 200, 1)
        assert gain["low"] == pytest.approx(np.percentile(a - b, 2.5))
        assert "free" in rows[2].extra
        assert "free" not in first.extra

    def test_a_shuffled_picture_is_another_patients_and_one_for_all_questions_of_an_image(self) -> None:
        questions = hand_worked()
        test = questions.of("test")
        rows = shuffled_rows(questions, test, seed=0)
        assert rows is not None
        for place, row in zip(test, rows, strict=True):
            owners = set(questions.patients_N[questions.rows_N == row].tolist())
            assert str(questions.patients_N[place]) not in owners
        assert shuffled_rows(questions, questions.of("train"), seed=0) is None
