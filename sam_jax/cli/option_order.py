"""In which order options were given: which --point came after which --object."""

import click

_ORDER = "sam_jax.cli.option_order"


class InOrder(click.Command):
    """A command that remembers in which order its options were given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses twice: click itself forgets the order between options."""
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        ctx.meta[_ORDER] = [param.name for param in order]
        return super().parse_args(ctx, args)


def options_in_order(ctx: click.Context) -> list[str]:
    """Names of an `InOrder` command's options and arguments, each as often as it was given."""
    return ctx.meta[_ORDER]
