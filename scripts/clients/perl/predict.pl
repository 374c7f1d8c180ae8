#!/usr/bin/env perl
# Predict with a bertsym bundle through MXNet's C predict API: predict.pl MODEL [INPUTS]
#
# INPUTS is the output of `bertsym tokenize`, one JSON object per line. The environment variable LIBMXNET names the
# library. AI::MXNet is not needed.
use v5.20;
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use FFI::Platypus 1.00;
use FFI::Platypus::Buffer qw(scalar_to_buffer);
use JSON::PP qw(decode_json);
use List::Util qw(max min product sum);

use constant LONGEST_ANSWER => 30;    # tokens

sub fail { say STDERR 'error: ', @_; exit 1 }

sub read_file {
    my ($path) = @_;
    open(my $file, '<:raw', $path) or fail("$path: $!");
    local $/;
    return scalar(<$file>) // '';
}

sub parse {
    my ($text, $where, $hint) = @_;
    my $document = eval { decode_json($text) };
    fail("$where: not a JSON object", $hint // '') unless ref $document eq 'HASH';
    return $document;
}

# Read a file whose size and SHA-256 must be those of the manifest.
sub read_checked {
    my ($prefix, $name, $manifest) = @_;
    my $entry = $manifest->{files}{$name} or fail("$prefix-manifest.json: does not list $name");
    my $bytes = read_file("$prefix-$name");
    fail("$prefix-$name: differs from the manifest in size or SHA-256")
        if length($bytes) != $entry->{size} || sha256_hex($bytes) ne $entry->{sha256};
    return $bytes;
}

sub read_manifest {
    my ($prefix) = @_;
    my $manifest = parse(read_file("$prefix-manifest.json"), "$prefix-manifest.json");
    my $version = $manifest->{format_version} // 'unknown';
    fail("$prefix: bundle format $version, this program reads format 2") if $version ne '2';
    return $manifest;
}

# Read the signature; refuse an untrained head, whose output is noise, and unknown tasks.
sub read_signature {
    my ($prefix, $manifest) = @_;
    my $signature = parse(read_checked($prefix, 'signature.json', $manifest), "$prefix-signature.json");
    fail("$prefix: untrained head: train it first, for example with bertsym finetune")
        if $signature->{kind} ne 'encoder' && defined $signature->{trained} && !$signature->{trained};
    my @tasks = qw(classification multilabel regression tagging qa);
    my $task = $signature->{task} // $tasks[0];
    fail("$prefix: task $task: not one of ", join ', ', @tasks) unless grep { $_ eq $task } @tasks;
    return $signature;
}

sub read_rows {
    my ($path) = @_;
    my $file = \*STDIN;
    open($file, '<:raw', $path) or fail("$path: $!") if defined $path;
    my @rows;
    my $hint = ': the rows are the output of bertsym tokenize';
    while (my $line = <$file>) { push @rows, parse($line, 'row ' . (@rows + 1), $hint) }
    return @rows ? \@rows : fail('no rows');
}

sub check_numbers {
    my ($row, $name, $low, $high, @values) = @_;
    for (@values) {
        fail("row $row: $name must have integers from $low to $high")
            unless defined && !ref && /^[0-9]{1,9}\z/a && $_ >= $low && $_ <= $high;
    }
}

# The length of a row's lists; a larger valid_length would make MXNet read out of bounds.
sub check_row {
    my ($row, $number, $inputs) = @_;
    my $length;
    for my $input (@$inputs) {
        my ($name, $value) = ($input->{name}, $row->{ $input->{name} });
        my $what = $input->{is_list} ? 'list' : 'number';
        fail("row $number: $name is not a $what") if !defined $value || (ref $value eq 'ARRAY') != $input->{is_list};
        next unless $input->{is_list};
        $length //= @$value;
        fail("row $number: lists of different lengths, or empty") if !@$value || @$value != $length;
        check_numbers($number, $name, 0, 1 << 24, @$value);
    }
    check_numbers($number, $_->{name}, 1, $length // 0, $row->{ $_->{name} }) for grep { !$_->{is_list} } @$inputs;
    return $length;
}

# The length of the batch: that of its longest row, or the fixed length of the symbol.
sub batch_length {
    my ($rows, $inputs, $signature) = @_;
    my ($fixed) = grep { defined && /^[0-9]+\z/a } map { $_->{shape}[1] } @$inputs;
    my $limit = $fixed // $signature->{max_length};
    my @lengths = map { check_row($rows->[$_], $_ + 1, $inputs) } 0 .. $#$rows;
    for (0 .. $#lengths) {
        my $number = $_ + 1;
        fail("row $number: $lengths[$_] tokens, the model takes $limit") if defined $limit && $lengths[$_] > $limit;
    }
    return $fixed // max(@lengths);
}

# The float32 elements of the input, with its lists padded.
sub packed {
    my ($input, $rows, $length) = @_;
    my @values = map { $_->{ $input->{name} } } @$rows;
    return pack('f*', @values) unless $input->{is_list};
    return join '', map { pack('f*', @$_, ($input->{padding}) x ($length - @$_)) } @values;
}

sub open_mxnet {
    my $path = $ENV{LIBMXNET} // fail('LIBMXNET is not set');
    my $ffi = FFI::Platypus->new(api => 1, lib => [$path]);
    my %types = (
        MXGetLastError       => [ [] => 'string' ],
        MXPredCreate         => [
            [qw(opaque opaque int int int uint32 string[] uint32[] uint32[] opaque*)] => 'int'
        ],
        MXPredSetInput       => [ [qw(opaque string opaque uint32)] => 'int' ],
        MXPredForward        => [ [qw(opaque)] => 'int' ],
        MXPredGetOutputShape => [ [qw(opaque uint32 opaque* uint32*)] => 'int' ],
        MXPredGetOutput      => [ [qw(opaque uint32 opaque uint32)] => 'int' ],
        MXPredFree           => [ [qw(opaque)] => 'int' ],
        MXNDArrayWaitAll     => [ [] => 'int' ],
    );
    my %functions = map {
        my $name = $_;
        $name => eval { $ffi->function($name, @{ $types{$name} }) } // fail("$path: has no $name, or can't be loaded")
    } keys %types;
    # MXNet's message has a stack trace after the first line.
    my $call = sub {
        my ($name, @arguments) = @_;
        return if $functions{$name}->call(@arguments) == 0;
        my $message = $functions{MXGetLastError}->call() =~ s/\n.*//sr;
        $functions{MXNDArrayWaitAll}->call();
        fail("$name: $message");
    };
    return ($ffi, $call);
}

# The address of a string's bytes, which it must outlive.
sub address { return (scalar_to_buffer($_[0]))[0] }

# The elements of the first output.
sub forward {
    my ($symbol, $params, $inputs, $rows, $length) = @_;
    my ($ffi, $call) = open_mxnet();
    fail('MXPredCreate takes no more than 2 GiB of parameters') if length($params) >= 1 << 31;
    $symbol .= "\0";
    my (@starts, @shapes) = (0);
    for my $input (@$inputs) {
        push @shapes, scalar(@$rows), $input->{is_list} ? $length : ();
        push @starts, scalar(@shapes);
    }
    my @names = map { $_->{name} } @$inputs;
    $call->(
        'MXPredCreate', address($symbol), address($params), length($params), 1, 0, scalar(@names), \@names, \@starts,
        \@shapes, \my $predictor
    );
    for my $input (@$inputs) {
        my $values = packed($input, $rows, $length);
        $call->('MXPredSetInput', $predictor, $input->{name}, address($values), length($values) / 4);
    }
    $call->('MXPredForward', $predictor);
    $call->('MXPredGetOutputShape', $predictor, 0, \my $shape, \my $dimensions);
    my $size = product(@{ $ffi->cast(opaque => "uint32[$dimensions]", $shape) });
    my $output = "\0" x (4 * $size);
    $call->('MXPredGetOutput', $predictor, 0, address($output), $size);
    $call->('MXPredFree', $predictor);
    # MXNet frees memory in its own threads: an exit meanwhile would sometimes abort or hang.
    $call->('MXNDArrayWaitAll');
    return unpack('f*', $output);
}

# The index of the first of the largest values.
sub argmax {
    my $largest = max(@_);
    return (grep { $_[$_] == $largest } 0 .. $#_)[0];
}

# A list of a window's row that has an element for each token or word; decoding needs it.
sub places {
    my ($window, $name) = @_;
    my $list = $window->{row}{$name};
    fail("row $window->{number}: no $name: write the inputs with bertsym tokenize") if ref $list ne 'ARRAY';
    return @$list;
}

# Start and end of each token in the context, undef for other tokens.
sub context_offsets {
    my ($window) = @_;
    my ($number, $tokens) = @$window{qw(number tokens)};
    my @offsets = places($window, 'offsets');
    fail("row $number: ", scalar(@offsets), " offsets for $tokens tokens") if @offsets != $tokens;
    my @known = grep { defined } @offsets;
    fail("row $number: no second text: a question needs a context") unless @known;
    for (@known) {
        fail("row $number: offsets must be pairs of integers, or null")
            unless ref eq 'ARRAY' && @$_ == 2 && 2 == grep { defined && !ref && /^[0-9]{1,9}\z/a } @$_;
    }
    return @offsets;
}

# The logarithms of the probabilities of the context and of token 0, from their logits.
sub log_probabilities {
    my ($offsets, @logits) = @_;
    my @known = @logits[ grep { $_ == 0 || defined $offsets->[$_] } 0 .. $#$offsets ];
    my $largest = max(@known);
    my $sum = log(sum(map { exp($_ - $largest) } @known));
    return map { $_ - $largest - $sum } @logits;
}

# The best span of the windows of a context, in characters, and the logarithms of its probability and of that of no
# answer. The probability of a span is that of its first token times that of its last; that of no answer is that of
# token 0, the lowest of the windows.
sub best_span {
    my ($start, $end, $best, $no_answer);
    for my $window (@_) {
        my @offsets = context_offsets($window);
        my ($starts, $ends) =
            map { my $column = $_; [ log_probabilities(\@offsets, map { $window->{outputs}[ 2 * $_ + $column ] } 0 .. $#offsets) ] } 0, 1;
        $no_answer = min($no_answer // (), $starts->[0] + $ends->[0]);
        for my $i (grep { defined $offsets[$_] } 0 .. $#offsets) {
            for my $j ($i .. min(scalar(@offsets), $i + LONGEST_ANSWER) - 1) {
                last unless defined $offsets[$j];
                my $score = $starts->[$i] + $ends->[$j];
                ($start, $end, $best) = ($offsets[$i][0], $offsets[$j][1], $score)
                    if (!defined $best || $score > $best) && $offsets[$i][0] < $offsets[$j][1];
            }
        }
    }
    return ($start, $end, $best, $no_answer);
}

sub mean {
    my @windows = @_;
    return map { my $i = $_; sum(map { $_->{outputs}[$i] } @windows) / @windows } 0 .. $#{ $windows[0]{outputs} };
}

# The header and the function that returns the cells of a text from its windows, by the task of the signature; without a
# task and classes only the numbers.
sub layout {
    my ($signature, $width) = @_;
    my ($task, $settings) = ($signature->{task} // '', $signature->{task_settings} // {});
    my @names = $signature->{kind} eq 'classifier' || $task eq 'tagging' ? @{ $signature->{class_names} } : ();
    my $expected = { qa => 2, regression => 1 }->{$task} // (@names || $task eq 'tagging' ? @names : $width);
    fail("the symbol has $width outputs, but the signature describes $expected") if $width != $expected;
    my $number = sub { sprintf '%.9g', $_[0] };
    if ($task eq 'tagging') {
        my $tag = sub {
            my ($window, $token) = @_;
            return '_' unless defined $token;
            check_numbers($window->{number}, 'words', 0, $window->{tokens} - 1, $token);
            return $names[ argmax(@{ $window->{outputs} }[ $token * $width .. ($token + 1) * $width - 1 ]) ];
        };
        return ['tags'], sub {
            return join ' ', map { my $window = $_; map { $tag->($window, $_) } places($window, 'words') } @_;
        };
    }
    if ($task eq 'qa') {
        my $threshold = $settings->{no_answer_threshold};
        return [qw(start end score no_answer)], sub {
            my ($start, $end, $score, $no_answer) = best_span(@_);
            ($start, $end) = ('', '') if defined $threshold && $no_answer - $score > $threshold;
            return $start, $end, map { $number->(exp) } $score, $no_answer;
        };
    }
    if ($task eq 'regression') {
        return ['value'], sub {
            my ($value) = mean(@_);
            return $number->($settings->{sigmoid} ? 1 / (1 + exp(-$value)) : $value);
        };
    }
    my @thresholds = @{ $settings->{thresholds} // [] };
    my $labels = sub { $names[ argmax(@_) ] };
    $labels = sub {
        my @values = @_;
        return join $settings->{label_delimiter} // ',',
            @names[ grep { $values[$_] >= ($thresholds[$_] // 0.5) } 0 .. $#values ];
    } if $task eq 'multilabel';
    my $title = $task eq 'multilabel' ? 'labels' : 'label';
    return @names ? [ $title, map { "p($_)" } @names ] : undef, sub {
        my @values = mean(@_);
        return (@names ? $labels->(@values) : ()), map { $number->($_) } @values;
    };
}

sub print_texts {
    my ($signature, $rows, $inputs, $length, @values) = @_;
    my $columns = @values / @$rows;
    my $width = ($signature->{task} // '') =~ /^(tagging|qa)\z/ ? $columns / $length : $columns;
    my ($scalar) = grep { !$_->{is_list} } @$inputs;
    my ($header, $cells) = layout($signature, $width);
    my ($number, $last, @texts) = (0);
    for my $row (@$rows) {
        # The number of tokens that are not padding.
        my $tokens = $scalar ? $row->{ $scalar->{name} } : scalar @{ $row->{ $inputs->[0]{name} } };
        my $window = { row => $row, number => ++$number, tokens => $tokens, outputs => [ splice @values, 0, $columns ] };
        # The windows of a text have the same number.
        my $example = $row->{example};
        if   (defined $example && defined $last && $example == $last) { push @{ $texts[-1] }, $window }
        else                                                          { push @texts, [$window] }
        $last = $example;
    }
    my @lines = map { [ $cells->(@$_) ] } @texts;
    binmode STDOUT, ':encoding(UTF-8)';
    say join "\t", @$_ for $header // (), @lines;
    close STDOUT or fail("standard output: $!");
    my $truncated = grep { $_->{truncated} } @$rows;
    say STDERR "warning: $truncated of ", scalar(@texts), ' texts were truncated' if $truncated;
}

if (@ARGV < 1 || @ARGV > 2) {
    say STDERR 'usage: predict.pl MODEL [INPUTS]';
    exit 2;
}
my ($prefix, $file) = @ARGV;
my $manifest = read_manifest($prefix);
my $signature = read_signature($prefix, $manifest);
my ($symbol, $params) = map { read_checked($prefix, $_, $manifest) } qw(symbol.json 0000.params);
my @inputs = map { { %$_{qw(name shape)}, is_list => @{ $_->{shape} } == 2, padding => 0 } } @{ $signature->{inputs} };
# The first input has the token ids. A symbol that is not a BERT has no pad_id.
$inputs[0]{padding} = $signature->{pad_id} // 0;
my $rows = read_rows($file);
my $length = batch_length($rows, \@inputs, $signature);
print_texts($signature, $rows, \@inputs, $length, forward($symbol, $params, \@inputs, $rows, $length));
