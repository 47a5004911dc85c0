"""Matrix products as LLVM IR: the loops around the micro-kernel, and the phases that threads run.

Functions are `void name(a, b, c, workspace, i32 tid, i32 nthreads, operands…)`, one for each phase of the plan; between
two phases all threads have to meet. Only the last phase writes C with the epilogue applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .blocking import GemmPlan
from .convolution import ConvPlan
from .finish import Epilogue, Finish
from .helpers import Helpers, place
from .microkernel import Level, Steps
from .packing import ALL
from .products import Matrix
from .values import I1, I64, Builder, Value, counted, larger, smaller
from .work import Share, define, digits, linear, piece_range, piece_start, reserve, shifted


def emit_gemm(
    module: Value, name: str, plan: GemmPlan, epilogue: Epilogue | None = None, helpers: Helpers | None = None
) -> tuple[Value, ...]:
    """Defines the product in a module of llvmlite: one function for each phase, in the order to run them.

    A single phase is called `name`, several are called `name_pack`, `name_compute`, `name_combine`. Micro-kernels and
    copies are defined in the same module, or – given `helpers` – declared in it and added to `helpers`.
    """
    names = zip(phase_names(name, plan.phases), plan.phases, strict=True)
    return tuple(emit_gemm_phase(module, symbol, plan, phase, epilogue, helpers) for symbol, phase in names)


def emit_gemm_phase(
    module: Value,
    name: str,
    plan: GemmPlan,
    phase: str,
    epilogue: Epilogue | None = None,
    helpers: Helpers | None = None,
) -> Value:
    """Defines the function of one phase."""
    emitters: dict[str, Callable[[Driver], None]] = {
        "pack": Driver.emit_pack,
        "compute": Driver.emit_compute,
        "combine": Driver.emit_combine,
    }
    driver = Driver.begin(module, name, plan, epilogue, helpers, plain=phase != "combine")
    emitters[phase](driver)
    driver.builder.ret_void()
    return driver.function


def emit_pack(module: Value, name: str, plan: GemmPlan, helpers: Helpers | None = None) -> Value:
    """Defines `void name(b, packed, i32 tid, i32 nthreads)`, which packs B once for products with `packed` operands.

    `plan` is that of the product whose B is not packed yet; `packed_bytes(plan)` says how large the result is.
    """
    function, builder, (b, packed, tid, nthreads) = define(module, name, 2)
    share = Share.of(builder, tid, nthreads)
    (b,) = shifted(builder, plan.stored, (b,), plan.offsets[1:2])
    Driver(module, function, builder, plan, None, b, b, b, packed, share, (), helpers).emit_pack()
    builder.ret_void()
    return function


def packed_bytes(plan: GemmPlan | ConvPlan) -> int:
    """The size of B – of a convolution's kernel – when it is packed."""
    products = plan.gemm.batches if isinstance(plan, GemmPlan) else 1
    return products * plan.packed_elements * plan.packed.dtype.size_bytes


def phase_names(name: str, phases: tuple[str, ...]) -> tuple[str, ...]:
    """The functions' names."""
    return (name,) if len(phases) == 1 else tuple(f"{name}_{phase}" for phase in phases)


# Drivers -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Driver:
    """A phase's function while it is written."""

    module: Value
    function: Value
    builder: Builder
    plan: GemmPlan
    epilogue: Epilogue | None
    a: Value
    b: Value
    c: Value
    workspace: Value
    share: Share
    operands: tuple[Value, ...]
    helpers: Helpers | None
    tile: Value = None  # where micro-kernels leave what is to be finished

    @classmethod
    def begin(
        cls,
        module: Value,
        name: str,
        plan: GemmPlan,
        epilogue: Epilogue | None,
        helpers: Helpers | None,
        *,
        plain: bool,
    ) -> Driver:
        extra = epilogue.operands if epilogue else 0
        function, builder, arguments = define(module, name, 4, extra, plain=plain)
        a, b, c, workspace, tid, nthreads, *operands = arguments
        a, b = shifted(builder, plan.stored, (a, b), plan.offsets[:2])
        (c,) = shifted(builder, plan.result, (c,), plan.offsets[2:])
        tile = reserve(builder, plan.stored, plan.rows.size * plan.columns.size) if plan.scratch else None
        share = Share.of(builder, tid, nthreads)
        return cls(module, function, builder, plan, epilogue, a, b, c, workspace, share, tuple(operands), helpers, tile)

    # Addresses -------------------------------------------------------------------------------------------------------
    def _batch_offset(self, batch: Value, steps: tuple[int, ...]) -> Value:
        return linear(self.builder, *zip(digits(self.builder, batch, self.plan.gemm.batch), steps, strict=True))

    def _operand(self, pointer: Value, batch: Value, steps: tuple[int, ...], *products: tuple[Value, int]) -> Value:
        return self.plan.stored.at(self.builder, pointer, self._offset(batch, steps, *products))

    def _offset(self, batch: Value, steps: tuple[int, ...], *products: tuple[Value, int]) -> Value:
        return self.builder.add(self._batch_offset(batch, steps), linear(self.builder, *products))

    def _private(self) -> Value:
        """This thread's part of the workspace."""
        plan, packed = self.plan, self.plan.packed
        offset = linear(self.builder, (self.share.tid, plan.private_elements))
        return packed.at(self.builder, packed.at(self.builder, self.workspace, plan.shared_elements), offset)

    def _panel_offset(self, panel: Value) -> Value:
        """Of a panel, in packed B of one product, when the reduction is `extent` long: times that."""
        return linear(self.builder, (piece_start(self.builder, self.plan.columns, panel), self.plan.lanes))

    def copy(
        self,
        operand: Matrix,
        source: Value,
        target: Value,
        counts: tuple[Value, Value],
        target_step: int,
        chunk: tuple[Value, Value] = (ALL, I64(0)),
    ) -> None:
        """A block of an operand into the workspace: counts of an outer and an inner axis, see `Copy`."""
        copy, steps = self.plan.copy(operand)
        numbers = [*counts, *(I64(step) for step in steps), I64(target_step), *chunk]
        self.builder.call(place(self.module, copy, self.helpers), [source, target, *numbers])

    # Phases ----------------------------------------------------------------------------------------------------------
    def emit_pack(self) -> None:
        """B of all products into panels, shared by all threads."""
        plan, builder = self.plan, self.builder
        if not (plan.gemm.batches and plan.gemm.n):
            return
        first, end = self.share.range(builder, plan.gemm.batches * plan.columns.pieces)

        def unit(u: Value, _: list[Value]) -> None:
            batch, panel = digits(builder, u, (plan.gemm.batches, plan.columns.pieces))
            goal = plan.packed.at(builder, self.workspace, linear(self.builder, (batch, plan.packed_elements)))
            next_panel = builder.add(panel, I64(1))
            self._pack_panels(batch, panel, next_panel, I64(0), I64(plan.gemm.k), goal, I64(0))

        counted(builder, first, end, unit, name="pack")

    def _pack_panels(
        self, batch: Value, panel: Value, end: Value, start: Value, stop: Value, goal: Value, base: Value
    ) -> None:
        """Panels `panel` … `end` of B for part of the reduction; `goal` is where column `base` goes."""
        plan, builder, gemm = self.plan, self.builder, self.plan.gemm
        extent = builder.sub(stop, start)
        for first, last, vectors in plan.columns.segments:
            width = vectors * plan.lanes
            low, high = larger(builder, panel, I64(first)), smaller(builder, end, I64(last))
            with builder.if_then(builder.icmp_signed("<", low, high)):
                column = self._panel_offset(low)
                inside = builder.sub(smaller(builder, self._panel_offset(high), I64(gemm.n)), column)
                source = self._operand(self.b, batch, gemm.b.batch, (start, gemm.b.row), (column, gemm.b.column))
                offset = builder.mul(builder.sub(column, base), extent)
                target = plan.packed.at(builder, goal, offset)
                chunk = I64(width), builder.mul(extent, I64(width))
                self.copy(gemm.b, source, target, (extent, inside), width, chunk)

    def emit_compute(self) -> None:
        """All products: each thread its units."""
        plan, builder = self.plan, self.builder
        if not plan.units:
            return
        first, end = self.share.range(builder, plan.units)
        bases = (plan.gemm.batches, plan.parts.pieces, plan.row_blocks.pieces, plan.panel_groups.pieces)

        def unit(u: Value, _: list[Value]) -> None:
            batch, part, block, group = digits(builder, u, bases)
            begins = builder.or_(builder.icmp_signed("==", u, first), builder.icmp_signed("==", group, I64(0)))
            Unit.of(self, batch, part, block, group).emit(begins)

        counted(builder, first, end, unit, name="unit")

    def emit_combine(self) -> None:
        """The sums of all parts, in order, and the epilogue."""
        plan, builder, gemm = self.plan, self.builder, self.plan.gemm
        first, end = self.share.range(builder, gemm.batches * gemm.m)
        partial = plan.packed.at(builder, self.workspace, plan.partial_offset)
        step = gemm.m * plan.padded_columns
        slot = reserve(builder, plan.stored, 1)

        def row(u: Value, _: list[Value]) -> None:
            batch, i = digits(builder, u, (gemm.batches, gemm.m))
            goal = plan.result.at(builder, self.c, self._offset(batch, gemm.c.batch, (i, gemm.c.row)))
            write = self.epilogue.row(builder, batch, i, self.operands) if self.epilogue else None
            start = linear(self.builder, (batch, plan.parts.pieces * step), (i, plan.padded_columns))

            def vector(v: Value, _: list[Value], mask: Value | None = None) -> None:
                column = builder.mul(v, I64(plan.lanes))
                source = plan.packed.at(builder, partial, builder.add(start, column))
                total = plan.sums.load(builder, source)
                for part in range(1, plan.parts.pieces):
                    more = plan.sums.load(builder, plan.packed.at(builder, source, part * step))
                    total = plan.stored.add(builder, total, more)
                place = plan.result.at(builder, goal, column)
                plan.stored.store(builder, total, slot if write else place, None if write else mask)
                if write:
                    write(column, slot, place, mask)

            full = gemm.n // plan.lanes
            counted(builder, 0, full, vector, name="vector")
            if plan.tail:
                vector(I64(full), [], plan.stored.first(builder, I64(plan.tail)))

        counted(builder, first, end, row, name="row")


# Units ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Unit:
    """A block of rows times a group of panels, over one part of the reduction."""

    driver: Driver
    batch: Value
    part: Value
    tiles: tuple[Value, Value]
    panels: tuple[Value, Value]
    blocks: tuple[Value, Value]  # of the reduction

    @classmethod
    def of(cls, driver: Driver, batch: Value, part: Value, block: Value, group: Value) -> Unit:
        plan, builder = driver.plan, driver.builder
        blocks = piece_range(builder, plan.parts, part)
        tiles = piece_range(builder, plan.row_blocks, block)
        return cls(driver, batch, part, tiles, piece_range(builder, plan.panel_groups, group), blocks)

    def emit(self, begins: Value) -> None:
        """Blocks of the reduction: copies and packs what is needed, then multiplies.

        A copy of A that is good for the whole reduction is made only where a block of rows `begins`.
        """
        plan, builder = self.driver.plan, self.driver.builder

        def block(k: Value, _: list[Value]) -> None:
            extent = piece_range(builder, plan.reduction, k)
            if plan.a == "copy" and plan.reduction.pieces == 1:
                with builder.if_then(begins):
                    self._copy_a(*extent)
            elif plan.a == "copy":
                self._copy_a(*extent)
            if plan.b == "private":
                base = self.driver._panel_offset(self.panels[0])
                self.driver._pack_panels(self.batch, *self.panels, *extent, self._packed_b(), base)
            later = builder.icmp_signed(">", k, self.blocks[0])
            last = builder.icmp_signed("==", k, builder.sub(self.blocks[1], I64(1)))
            call = _Call(self, extent, later, last)
            if plan.rows_first:
                self._each_tile(lambda row, rows: self._each_panel(lambda *panel: call.emit(row, rows, *panel)))
            else:
                self._each_panel(lambda *panel: self._each_tile(lambda row, rows: call.emit(row, rows, *panel)))

        counted(builder, *self.blocks, block, name="reduction")

    def _each_tile(self, body: Callable[[Value, int], None]) -> None:
        """For each tile: its first row, how many rows it has."""
        plan, builder = self.driver.plan, self.driver.builder
        for first, last, rows in plan.rows.segments:
            low, high = larger(builder, self.tiles[0], I64(first)), smaller(builder, self.tiles[1], I64(last))

            def tile(t: Value, _: list[Value], rows: int = rows) -> None:
                body(piece_start(builder, plan.rows, t), rows)

            counted(builder, low, high, tile, name="tile")

    def _each_panel(self, body: Callable[[Value, int, bool], None]) -> None:
        """For each panel: its first column, how many vectors it has, whether it is partly outside."""
        plan, builder = self.driver.plan, self.driver.builder
        for first, last, vectors, ragged in plan.panels():
            low, high = larger(builder, self.panels[0], I64(first)), smaller(builder, self.panels[1], I64(last))

            def panel(p: Value, _: list[Value], vectors: int = vectors, ragged: bool = ragged) -> None:
                body(self.driver._panel_offset(p), vectors, ragged)

            counted(builder, low, high, panel, name="panel")

    def _steps(self, vectors: int, b_step: int) -> Steps:
        plan, gemm = self.driver.plan, self.driver.plan.gemm
        copied = plan.a == "copy"
        if not copied:
            size = 2 if gemm.pairs else 1
            a_row, a_step = gemm.a.row // size, gemm.a.column // size
        else:
            a_row, a_step = (1, plan.a_copy_step) if gemm.a.row == 1 else (plan.a_copy_step, 1)
        to_parts = plan.parts.pieces > 1
        c_row = plan.padded_columns if to_parts else vectors * plan.lanes if plan.scratch else gemm.c.row
        return Steps(a_row, c_row, (Level(a_step, b_step),))

    # Addresses -------------------------------------------------------------------------------------------------------
    def _a(self, start: Value, row: Value) -> Value:
        """Where a tile's part for a block of the reduction begins."""
        driver, plan, gemm = self.driver, self.driver.plan, self.driver.plan.gemm
        if plan.a == "direct":
            return driver._operand(driver.a, self.batch, gemm.a.batch, (row, gemm.a.row), (start, gemm.a.column))
        i = driver.builder.sub(row, piece_start(driver.builder, plan.rows, self.tiles[0]))
        offset = linear(driver.builder, (i, 1 if gemm.a.row == 1 else plan.a_copy_step))
        return plan.packed.at(driver.builder, driver._private(), offset)

    def _copy_a(self, start: Value, stop: Value) -> None:
        driver, plan, gemm, builder = self.driver, self.driver.plan, self.driver.plan.gemm, self.driver.builder
        row, end = (piece_start(builder, plan.rows, tile) for tile in self.tiles)
        source = driver._operand(driver.a, self.batch, gemm.a.batch, (row, gemm.a.row), (start, gemm.a.column))
        rows, reduction = builder.sub(end, row), builder.sub(stop, start)
        counts = (reduction, rows) if gemm.a.row == 1 else (rows, reduction)
        driver.copy(gemm.a, source, driver._private(), counts, plan.a_copy_step)

    def _packed_b(self) -> Value:
        """Where this thread packs its panels: behind its copy of A."""
        return self.driver.plan.packed.at(self.driver.builder, self.driver._private(), self.driver.plan.a_copy_elements)

    def _b(self, start: Value, stop: Value, column: Value, vectors: int) -> tuple[Value, int]:
        """Where a panel's part for a block of the reduction begins, and the step between its rows."""
        driver, plan, builder = self.driver, self.driver.plan, self.driver.builder
        gemm = plan.gemm
        if plan.b == "direct":
            source = driver._operand(driver.b, self.batch, gemm.b.batch, (start, gemm.b.row), (column, 1))
            return source, gemm.b.row
        width = vectors * plan.lanes
        if plan.b == "private":
            before = builder.sub(column, driver._panel_offset(self.panels[0]))
            return plan.packed.at(builder, self._packed_b(), builder.mul(before, builder.sub(stop, start))), width
        whole = driver.b if plan.b == "packed" else driver.workspace
        offset = linear(builder, (self.batch, plan.packed_elements), (column, gemm.k), (start, width))
        return plan.packed.at(builder, whole, offset), width

    def _c(self, row: Value, column: Value) -> Value:
        driver, plan, gemm = self.driver, self.driver.plan, self.driver.plan.gemm
        if plan.parts.pieces == 1:
            offset = driver._offset(self.batch, gemm.c.batch, (row, gemm.c.row), (column, 1))
            return plan.result.at(driver.builder, driver.c, offset)
        step = gemm.m * plan.padded_columns
        offset = linear(
            driver.builder,
            (self.batch, plan.parts.pieces * step),
            (self.part, step),
            (row, plan.padded_columns),
            (column, 1),
        )
        return plan.packed.at(driver.builder, driver.workspace, driver.builder.add(I64(plan.partial_offset), offset))


@dataclass(frozen=True, slots=True)
class _Call:
    """Calls of the micro-kernel for one block of the reduction: not the first one, the last one."""

    unit: Unit
    extent: tuple[Value, Value]
    later: Value
    last: Value

    def emit(self, row: Value, rows: int, column: Value, vectors: int, ragged: bool) -> None:
        """One tile of one panel."""
        unit, driver, plan, builder = self.unit, self.unit.driver, self.unit.driver.plan, self.unit.driver.builder
        start, stop = self.extent
        b, b_step = unit._b(start, stop, column, vectors)
        kernel, steps = plan.micro_kernel(rows, vectors, ragged), unit._steps(vectors, b_step)
        inside = builder.sub(I64(plan.gemm.n), column) if ragged else I64(vectors * plan.lanes)
        c = unit._c(row, column)
        goal = driver.tile if plan.scratch else c
        function = place(driver.module, kernel, driver.helpers)
        more = steps.arguments([builder.sub(stop, start)])
        builder.call(function, [unit._a(start, row), b, goal, inside, self.later, *more])
        if driver.epilogue is None or plan.parts.pieces > 1:
            return
        finish = place(driver.module, Finish(plan.stored, plan.result, driver.epilogue), driver.helpers)
        places = [unit.batch, row, I64(1), column]
        between = [I64(steps.c_row), I64(plan.gemm.c.row)]
        with builder.if_then(I1(1) if plan.scratch else self.last):
            builder.call(finish, [goal, c, I64(rows), inside, *between, *places, *driver.operands])
