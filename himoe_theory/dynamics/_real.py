"""What the closed forms here take and give: a number, or an array of numbers entry by entry."""

from jaxtyping import Array, Float

Real = float | Float[Array, "..."]
