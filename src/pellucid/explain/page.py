"""The pictures of one image and one model in a folder, and index.html, which shows and explains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.data.dataset import Dataset, rescaled
from pellucid.data.images import open_image
from pellucid.data.preparation import Prepared
from pellucid.errors import DataError, OptionError, one_line
from pellucid.explain import figures
from pellucid.explain.attribution import cam_layer, grad_cam, integrated_gradients, occlusion, saliency
from pellucid.explain.latent import bottleneck, codes, grid, interpolate, last_hidden, nearest, plane, sample
from pellucid.explain.maps import dead, kernels
from pellucid.explain.maximization import maximize
from pellucid.explain.products import pixel, shown
from pellucid.explain.receptive import cells_that_see, effective_field, receptive_field
from pellucid.explain.walk import INPUT, Trace, check_model, one_image, places, target_cell, trace
from pellucid.files import make_folder, write_atomic
from pellucid.model import Model
from pellucid.report.plots import to_png
from pellucid.shapes import text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "index.html"
_SHOWN = 64  # maps of a layer
_NUMBERS = 2048  # of a dense layer
_CODES = 500  # images of a map of codes
_AS_THEY_ARE = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Dropout, nn.Dropout2d)
_UNIT = (0.0, 1.0)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        file: Its name in the folder.
        title: Above it.
        says: Below it: what it shows.
        alt: What a reader who does not see it should know.
    """

    file: str
    title: str
    says: str
    alt: str


@dataclass
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        says: What its pictures show, and what they do not prove.
        pictures: In order.
        details: Text in columns, with what it is; "" for none.
    """

    title: str
    says: str
    pictures: list[Picture] = field(default_factory=list)
    details: tuple[str, str] = ("", "")


def write(
    model: Model,
    image: object,
    folder: str | Path,
    target: object = None,
    ds: Dataset | None = None,
    name: str = "image",
    progress: Callable[[int, int], None] = lambda done, total: None,
    trained_on: bool = True,
) -> Path:
    """Write all pictures of an image and index.html into a folder, and return the page's path.

    Args:
        model: A model.
        image: A file, a PIL image, or a raw array (C, H, W).
        folder: Where to; made if it is not there.
        target: The class to explain, by name or number; the likeliest if None.
        ds: Data of the model, for neighbors and the map of codes; these are left out if None.
        name: What to call the image.
        progress: Called with (done, total).
        trained_on: Whether the training part of ds, or all of it where there is none, is what the model was trained
            on; if not, the page says that this is not known.

    Raises:
        DataError: For an image that the model cannot take.
        OptionError: For a class that does not exist.
        FileError: With path and reason, where it cannot be written.

    >>> import tempfile
    >>> import pellucid as pl
    >>> data = pl.data.load("digits")
    >>> run = pl.fit(pl.models.create("mlp", data.shape, 10), data, epochs=1, progress=False)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(run.model, data.images[0], folder).name
    'index.html'
    """
    work = _Work(model, image, Path(folder), target, ds, trained_on)
    make_folder(work.folder)
    makers = work.makers()
    sections = []
    for done, maker in enumerate(makers):
        progress(done, len(makers))
        sections += list(maker())
    progress(len(makers), len(makers))
    from jinja2 import Environment, PackageLoader

    environment = Environment(loader=PackageLoader("pellucid.explain", "."), autoescape=True, trim_blocks=True)
    page = environment.get_template("index.html.j2").render(
        name=one_line(name, 120), sections=sections, work=work, bars=work.bars(), unsure=work.unsure()
    )
    path = work.folder / NAME
    write_atomic(path, page.encode())
    return path


class _Work:
    """What all sections need: the model, the image, and what flowed through the network."""

    def __init__(
        self, model: Model, image: object, folder: Path, target: object, ds: Dataset | None, trained_on: bool
    ) -> None:
        self.trained_on = trained_on
        self.model, self.network, self.folder, self.ds = check_model(model), model.network, folder, ds
        raw = one_image(model, image)
        if ds is not None and ds.shape != model.input.shape:
            raise DataError(f"the data have images {text(ds.shape)}, the model takes {text(model.input.shape)}")
        self.raw: Array = raw[0]
        given: Any = image
        is_picture = isinstance(given, (str, Path)) or hasattr(given, "getexif")
        self.preparation = model.input.prepare(open_image(given)) if is_picture else Prepared(self.raw)
        self.trace: Trace = trace(self.network, model.input.canonical(raw))
        self.output: Array = self.trace.outputs[""][0]
        self.cell = target_cell(model, self.output, target)
        self.layers = {place: layer for place, layer in places(self.network) if place}
        if not np.isfinite(self.output).all():
            raise DataError("the network gives NaN or infinity for this image; its weights are unusable")
        reference = replace(model, engine="reference")
        self.prediction = reference.predict_prepared(raw) if model.classes else None

    @property
    def is_classifier(self) -> bool:
        return bool(self.model.classes)

    @property
    def is_autoencoder(self) -> bool:
        """Whether what comes out is an image again, made from fewer numbers."""
        narrow = self.trace.outputs[bottleneck(self.network)]
        return self.output.shape == self.model.input.shape and narrow.size < self.output.size

    @property
    def what(self) -> str:
        """What is explained, in words."""
        if self.is_classifier:
            return f'the class "{one_line(self.model.classes[self.cell[0]], 60)}"'
        return f"output {', '.join(map(str, self.cell))}"

    def makers(self) -> list[Callable[[], Iterator[Section]]]:
        makers = [self.seen, self.maps, self.learned, self.fields, self.number]
        makers += [self.reconstruction] if self.is_autoencoder else [self.counts]
        makers.append(self.excited)
        return makers if self.ds is None else [*makers, self.neighbors, self.space]

    def bars(self) -> list[tuple[str, float]]:
        """The likeliest classes, at most ten, in the order of the classes."""
        if self.prediction is None:
            return []
        p = self.prediction.probabilities[0]
        best = np.sort(np.argsort(-p, kind="stable")[:10])
        return [(self.model.classes[i], float(p[i])) for i in best]

    def unsure(self) -> str | None:
        """Why the model should not be trusted with this image, or None."""
        return None if self.prediction is None else self.prediction.unsure[0]

    def add(self, section: Section, file: str, figure: Figure, title: str, says: str, alt: str) -> None:
        """Write a figure and show it in a section."""
        file = f"{file}.png"
        write_atomic(self.folder / file, to_png(figure))
        section.pictures.append(Picture(file, title, says, alt))

    def label(self, place: str) -> str:
        return f"{place} {type(self.layers[place]).__name__}"

    def seen(self) -> Iterator[Section]:
        c, h, w = self.model.input.shape
        section = Section(
            "What the network saw",
            f"Not your picture, but {h} x {w} {'gray' if c == 1 else 'color'} pixels made from it. "
            "All that follows is computed from these.",
        )
        figure = figures.gallery(self.raw[None], self.model.input.value_range, columns=1)
        figure.set_size_inches(2.4, 2.4 * h / w)
        alt = f"the image as the network gets it, {h} by {w} pixels"
        self.add(section, "seen", figure, "The input", "", alt)
        found = self.preparation
        if found.steps:
            then = "No figure was found."
            if "seen" in found.steps:
                pen = "its strokes brought to a usual width, " if "pen" in found.steps else ""
                then = f"The figure is found, {pen}fitted, and centered by mass."
            self.add(
                section,
                "preparation",
                figures.preparation(found),
                "How it came about",
                f"The ink is {found.polarity.replace('-', ' ')}, best seen in {found.channel}. {then}",
                f"{len(found.steps)} steps from the picture to the input: {', '.join(found.steps)}",
            )
        yield section

    def maps(self) -> Iterator[Section]:
        section = Section(
            "Layer by layer",
            "What each layer gives for this image, in the order of computation. First layers keep the image's "
            "outline and answer edges; later ones are coarser and answer parts. A bright cell is a large number; black "
            "or, where there are negative ones, middle gray is 0. A map that is crossed out is the same everywhere, so "
            "it says nothing about this image; that does not make its filter useless.",
        )
        for place, layer in self.layers.items():
            y = self.trace.outputs[place][0]
            if isinstance(layer, (*_AS_THEY_ARE, nn.Sequential)) or not np.isfinite(y).all():
                continue
            shape = f"{text(y.shape)} numbers" if y.ndim == 3 else f"{y.size} numbers"
            most = _SHOWN if y.ndim == 3 else _NUMBERS
            values = f"{shape}, from {y.min():.3g} to {y.max():.3g}." if y.size > 1 else f"One number, {y.item():.3g}."
            says, silent = values, ""
            if y.ndim == 3:
                count = int(dead(y).sum())
                silent = f" {count} of {len(y)} maps say nothing." if count else ""
                says += " The number at the left is that of the row's first map."
            if len(y) > most:
                silent += f" The first {most} are drawn."
            figure = figures.feature_maps(y[:most])
            alt = f"values of layer {self.label(place)}: {values}{silent}"
            self.add(section, f"maps-{place}", figure, self.label(place), says + silent, alt)
        yield section

    def learned(self) -> Iterator[Section]:
        weights = {place: weight for place, weight in kernels(self.network).items() if weight.ndim == 4}
        if not weights:
            return
        section = Section(
            "What the filters have learned",
            "Middle gray is 0, white the largest and black the smallest weight of the layer. A kernel answers where "
            "the input is bright under its white cells and dark under its black ones. Those of the first layer can "
            "be read as edges and spots; deeper ones look at maps, not at pixels, and a picture of them says little.",
        )
        for place, weight in weights.items():
            layer: Any = self.layers[place]
            if isinstance(layer, nn.ConvTranspose2d):  # (in, out / groups, kh, kw)
                into, out, *kernel = weight.shape
                parts = weight.reshape(layer.groups, into // layer.groups, out, *kernel)
                weight = parts.swapaxes(1, 2).reshape(-1, into // layer.groups, *kernel)
            out, into = weight.shape[:2]
            part = out > 16 or into > 16
            says = f"{out} x {into} kernels {text(weight.shape[2:])}."
            if into > 1:
                of = " of the filter's group" if layer.groups > 1 else ""
                says += (
                    f" Filters along one side, input channels{of} along the other{'; the first 16' if part else ''}."
                )
            alt = f"kernels of layer {self.label(place)}, weights from {weight.min():.3g} to {weight.max():.3g}"
            figure = figures.kernels(weight, groups=layer.groups)
            self.add(section, f"kernels-{place}", figure, self.label(place), says, alt)
        yield section

    def fields(self) -> Iterator[Section]:
        spatial = [
            place
            for place in self._convolutions()
            if np.prod(self.trace.outputs[place].shape[2:]) > 1
            and "shortcut" not in place.split(".")  # it is computed last, and sees less than the body beside it
        ]
        if not spatial:
            return
        section = Section(
            "How much of the image a cell sees",
            "The frame is the receptive field of the layer's most excited cell: no pixel outside it can change that "
            "cell, whatever the weights are. Beside it stands how strongly each pixel moves the cell at this image. "
            "Inside the frame most pixels count little. What counts here need not decide the class.",
        )
        value_range = self.model.input.value_range
        strongest = np.abs(self.trace.gradients({"": self._asked()})[INPUT][0]).sum(axis=0)
        point = tuple(int(i) for i in np.unravel_index(int(strongest.argmax()), strongest.shape))
        for place in _spread(spatial, 4):
            y = self.trace.outputs[place][0]
            channel, *cell = (int(i) for i in np.unravel_index(int(y.argmax()), y.shape))
            box = receptive_field(self.network, place, cell)
            if any(span.start == span.stop for span in box):  # it sees nothing but padding
                continue
            effective = effective_field(self.model, self.raw, place, cell, channel)
            rows, columns = ((s.start, s.stop - 1) for s in box)
            says = (
                f"Cell {cell[0]}, {cell[1]} of map {channel} sees rows {rows[0]} to {rows[1]} and columns "
                f"{columns[0]} to {columns[1]}."
            )
            figure = figures.receptive_field(self.raw, value_range, box, effective)
            self.add(section, f"field-{place}", figure, self.label(place), says, f"the image with a frame. {says}")
        seen = {place: cells_that_see(self.network, place, point) for place in spatial}
        last = next((place for place in reversed(spatial) if seen[place].mean() < 0.7), spatial[0])
        cells = seen[last]
        figure = figures.cells_that_see(self.raw, value_range, (point[0], point[1]), cells)
        says = f"{int(cells.sum())} of {cells.size} cells see the pixel in row {point[0]}, column {point[1]}."
        title = f"The other way: {self.label(last)}"
        self.add(section, "seen-by", figure, title, says, f"a pixel, and the cells of a layer. {says}")
        yield section

    def number(self) -> Iterator[Section]:
        first = next(iter(self._convolutions()), None) or next(
            (place for place, layer in self.layers.items() if isinstance(layer, nn.Linear)), None
        )
        if first is None or (isinstance(self.layers[first], nn.Linear) and self.trace.outputs[first].ndim != 2):
            return
        one = pixel(self.model, self.raw, first)
        d = one.decimals
        where = f"cell {one.cell[0]}, {one.cell[1]} of map {one.channel}" if one.cell else f"output {one.channel}"
        says = (
            f"The largest number of layer {self.label(first)} is {where}. A patch of what goes in times a kernel, "
            f"number by number, makes {one.patch.size} products. Their sum {shown(one.total - one.bias, d + 2)} and "
            f"the bias {shown(one.bias, d + 2)} make {shown(one.total, d)}; the engine computed {shown(one.value, d)}."
        )
        if one.activated is not None:
            says += f" {one.activated[0]} behind it makes {shown(one.activated[1], d)} of it."
        section = Section("One number, step by step", says, details=("All numbers", str(one)))
        if one.patch.ndim == 3 and max(one.patch.shape[1:]) <= 7:
            some = "The three channels that count most." if len(one.patch) > 3 else ""
            words = f"Products rounded to two decimals; the exact ones are below. {some}"
            alt = f"patch, kernel and products as tables of numbers; they sum to {shown(one.total, d)} with the bias"
            self.add(section, "number", figures.pixel(one), f"{self.label(first)}, {where}", words, alt)
        yield section

    def counts(self) -> Iterator[Section]:
        section = Section(
            f"Which pixels count for {self.what}",
            "Four methods that ask four different questions about the same score. Where they agree, the region matters "
            "to the network; where not, the picture alone proves nothing. None of them says that the network is right, "
            "or what it would do with another image.",
        )
        value_range, score = self.model.input.value_range, float(self.output[self.cell])

        def add(file: str, values: Array, signed: bool, title: str, says: str) -> None:
            figure = figures.attribution(self.raw, value_range, values, signed)
            alt = f"{title} beside the image. {says}"
            self.add(section, file, figure, title, says, alt)

        target = self.cell
        values = saliency(self.model, self.raw, target)
        says = "If a pixel changed a little, how much would the score move? Bright: much, in either direction."
        add("saliency", values, False, "Saliency", says)
        found = integrated_gradients(self.model, self.raw, target)
        says = (
            "Each pixel's share of what sets this image apart from a plain one in the color of its border. "
            f"Bright speaks for {self.what}, dark against it. The shares sum to {found.values.sum():.4g}; the score "
            f"rose by {found.difference:.4g}."
        )
        add("integrated-gradients", found.values, True, "Integrated gradients", says)
        says = (
            f"How far the score ({score:.4g}) falls when a patch in the color of the border covers the place. Bright: "
            "it falls, dark: it rises. A covered image is one that the network never saw in training."
        )
        add("occlusion", occlusion(self.model, self.raw, target), True, "Occlusion", says)
        try:
            place = cam_layer(self.network)
        except OptionError:
            section.says += " Grad-CAM needs maps, and this network has none."
        else:
            cam = grad_cam(self.model, self.raw, target, place)
            says = (
                f"Where the maps of layer {self.label(place)} speak for {self.what}. They have only {text(cam.shape)} "
                "cells, stretched over the image, so that edges of the bright region mean nothing."
            )
            if not cam.any():
                says += " Here they are dark everywhere: on the whole these maps speak against it."
            add("grad-cam", cam, False, "Grad-CAM", says)
        yield section

    def excited(self) -> Iterator[Section]:
        section = Section(
            "What excites a filter",
            "Starting from gray noise, an image is changed step by step so that a filter answers more strongly, kept "
            "in range and smoothed so that the eye can read it. The numbers say how the answer rose. Such an image "
            "shows one thing that excites the filter, not all, and nothing like it need occur in pictures.",
        )
        chosen: dict[str, list[int]] = {}
        for place in _spread(self._convolutions(), 3):
            y = np.maximum(self.trace.outputs[place][0], 0)
            chosen[place] = np.sort(np.argsort(-y.mean(axis=(1, 2)), kind="stable")[:8]).tolist()
        if self.is_classifier:
            last = [name for name, _ in self.network.children()][-1]
            chosen[last] = np.sort(np.argsort(-self.output, kind="stable")[:12]).tolist()
        for place, units in chosen.items():
            found = maximize(self.model, place, units)
            names = [str(unit) for unit in units]
            is_class = self.is_classifier and self.trace.outputs[place] is self.trace.outputs[""]
            if is_class:
                names = [one_line(self.model.classes[unit], 10) for unit in units]
            numbers = zip(names, found.before, found.after, strict=True)
            labels = [f"{name}: {before:.1f} to {after:.1f}" for name, before, after in numbers]
            which = "the likeliest classes" if is_class else "the filters that answer this image most"
            title = f"{self.label(place)}: {which}"
            figure = figures.gallery(found.images, self.model.input.value_range, labels)
            rise = f"Mean answer {found.before.mean():.3g} before, {found.after.mean():.3g} after."
            alt = f"images that excite {which} of layer {self.label(place)}: {'; '.join(labels)}"
            self.add(section, f"excites-{place}", figure, title, rise, alt)
        if section.pictures:
            yield section

    def reconstruction(self) -> Iterator[Section]:
        error = ""
        low, high = self.model.input.value_range
        unit = (self.raw.astype(np.float64) - low) / (high - low)
        if self.output.min() >= 0 and self.output.max() <= 1:
            error = f" Mean squared error {np.square(unit - self.output).mean():.4g}, of pixels from 0 to 1."
        narrow = bottleneck(self.network)
        size = self.trace.outputs[narrow][0].size
        section = Section(
            "What comes back",
            f"The image passes through {size} numbers (layer {self.label(narrow)}), {self.output.size / size:.3g} "
            f"times fewer than it has.{error} That the image comes back does not mean that the numbers can be read by "
            "people.",
        )
        figure = figures.gallery(np.stack([unit, self.output]), _UNIT, ["image", "what comes back"], columns=2)
        self.add(section, "reconstruction", figure, "Image and reconstruction", "", "the image and its reconstruction")
        yield section

    def neighbors(self) -> Iterator[Section]:
        ds = self._data()
        place = self._coded()
        found, distances = nearest(self.model, self.raw, ds, place, part=self._fitted())
        images = self._images()
        section = Section(
            f"The nearest {images}",
            f"Those whose numbers in layer {self.label(place)} are most like this image's. Near means that the network "
            "treats them alike, not that they look alike to people.",
        )
        if not self.trained_on:
            section.says += " They are not known to be images that the model was trained on."
        labels = [
            f"{one_line(ds.classes[ds.targets[i]], 10)}: {d:.2f}" if ds.is_classification else f"{d:.2f}"
            for i, d in zip(found, distances, strict=True)
        ]
        figure = figures.gallery(ds.images[found], ds.value_range, labels)
        says = "Label and distance. " if ds.is_classification else "Distances. "
        alt = f"the nearest {images}, with label and distance: {'; '.join(labels)}"
        self.add(section, "nearest", figure, "Nearest first", says, alt)
        yield section

    def space(self) -> Iterator[Section]:
        ds = self._data()
        place = self._coded()
        known, new = (_spread(ds.indices(part).tolist(), _CODES) for part in (self._fitted(), self._new()))
        if min(len(known), len(new)) < 3:
            return
        value_range = self.model.input.value_range
        fitted, drawn = (codes(self.model, rescaled(ds, np.array(part), value_range), place) for part in (known, new))
        own = self.trace.outputs[place].reshape(1, -1)
        everything = np.concatenate([drawn, own])
        targets = ds.targets[new] if ds.is_classification else np.zeros(len(new), dtype=np.int64)
        names = ds.classes if ds.is_classification else ("images",)
        section = Section(
            "A map of all images",
            f"Each sign is one of {len(new)} images, laid out by what layer {self.label(place)} makes of it; the star "
            "is this one. Signs that stand apart are told apart easily by what follows.",
        )
        flat = plane(everything, fitted)
        says = (
            f"The plane along which {len(known)} {self._images()} vary most; it shows {flat.explained:.0%} of the "
            "variance. What overlaps here may lie apart in the other directions."
        )
        figure = figures.plane(flat.points[:-1], targets, names, flat.points[-1])
        self.add(section, "map-pca", figure, "PCA", says, f"scatter plot by class. {says}")
        tangled = plane(everything, method="tsne")
        says = (
            "Keeps neighbors together. Distances between groups, their sizes and the axes mean nothing, and another "
            "seed gives another map."
        )
        figure = figures.plane(tangled.points[:-1], targets, names, tangled.points[-1])
        self.add(section, "map-tsne", figure, "t-SNE", says, f"scatter plot by class. {says}")
        yield section
        if not self.is_autoencoder:
            return
        section = Section(
            "What the decoder makes of other numbers",
            "A plain autoencoder learned to bring back its training images and nothing else. It promises neither that "
            "points between two images, nor that points drawn at random, give anything: what you see where no training "
            "image lies is what happens to come out.",
        )
        far = rescaled(ds, np.array(known[-1:]), value_range)[0]
        strip = interpolate(self.model, self.raw, far, place)
        says = "Eight points on the straight line between the numbers of this image and of another one."
        self.add(section, "interpolation", figures.gallery(strip, _UNIT), "From this image to another", says, says)
        sheet = grid(self.network, place, plane(fitted))
        says = "The plane of the map above, decoded at a grid of points."
        figure = figures.gallery(sheet.reshape(-1, *sheet.shape[2:]), _UNIT, columns=len(sheet))
        self.add(section, "grid", figure, "A grid of the map", says, says)
        says = f"Points drawn from a Gaussian density fitted to the numbers of {self._images()}, decoded."
        drawn_images = sample(self.network, place, fitted)
        self.add(section, "samples", figures.gallery(drawn_images, _UNIT), "Samples", says, says)
        yield section

    def _convolutions(self) -> list[str]:
        return [place for place, layer in self.layers.items() if isinstance(layer, nn.Conv2d)]

    def _asked(self) -> Array:
        dy = np.zeros_like(self.trace.outputs[""])
        dy[0][self.cell] = 1
        return dy

    def _data(self) -> Dataset:
        if self.ds is None:
            raise DataError("neighbors need data")
        return self.ds

    def _images(self) -> str:
        """What the images are called that this one is compared with."""
        return "training images" if self.trained_on else f"images of {one_line(self._data().name, 60)}"

    def _coded(self) -> str:
        """Return the layer whose values stand for an image: what is narrowest, or what the last layer decides on."""
        if self.is_autoencoder:
            return bottleneck(self.network)
        try:
            return last_hidden(self.network)
        except OptionError:
            return [name for name, _ in self.network.children()][-1]

    def _fitted(self) -> str:
        return "train" if len(self._data().indices("train")) else "all"

    def _new(self) -> str:
        return next((part for part in ("test", "val") if len(self._data().indices(part))), "all")


def _spread(things: list[_T], most: int) -> list[_T]:
    """Return at most so many, evenly from all, the first and the last among them."""
    if len(things) <= most:
        return things
    return [things[round(i * (len(things) - 1) / (most - 1))] for i in range(most)]
