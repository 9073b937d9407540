"""What several test folders share: real servers, builders of inputs, readers of the chart."""
