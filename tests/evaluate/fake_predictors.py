"""Predictors that answer with masks known beforehand, and remember what they were asked."""

import numpy as np


class FakePrediction:
    def __init__(self, scores, logits, masks):
        self.scores = np.asarray(scores, np.float32)
        self.logits = np.asarray(logits, np.float32)
        self._masks = masks

    def mask(self, prompt, index):
        return self._masks[prompt][index]


class FakePredictor:
    """Knows an object by its first click or its box, and answers each call as `masks_of` says.

    masks_of(object, call) gives the masks of an answer, of three the second the most confident. A
    mask's logits are all of the number 100 * object + 10 * call + index: what comes back is
    recognized.
    """

    def __init__(self, truths, masks_of):
        self.truths, self.masks_of = truths, masks_of
        self.calls = []

    def predict(self, embedding, *, points=None, labels=None, boxes=None, masks=None, multimask):
        call = len(self.calls)
        given = {"points": points, "labels": labels, "boxes": boxes, "masks": masks}
        self.calls.append({"embedding": embedding, "multimask": multimask, **given})
        if points is not None:
            inside = [(int(x), int(y)) for x, y in points[:, 0]]
        else:
            inside = [(int(x0 + x1) // 2, int(y0 + y1) // 2) for x0, y0, x1, y1 in boxes]
        objects = [next(i for i, t in enumerate(self.truths) if t[y, x]) for x, y in inside]
        count = 3 if multimask else 1
        answers = [self.masks_of(one, call)[:count] for one in objects]
        assert all(len(masks) == count for masks in answers)
        numbers = [[100 * one + 10 * call + k for k in range(count)] for one in objects]
        logits = np.broadcast_to(np.array(numbers)[..., None, None], (len(objects), count, 8, 8))
        scores = [[0.1, 0.9, 0.5][:count]] * len(objects)
        return FakePrediction(scores, logits, answers)
