function fibonacci(number) { return number < 2 ? number : fibonacci(number - 1) + fibonacci(number - 2); }
module.exports = (number) => {
  let result = 0;
  for (let round = 0; round < 8; round++) result = fibonacci(number);
  return result;
};
